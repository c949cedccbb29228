"""deliver.toml: what is wrong is named by file, key and fix; secrets stay out of sight."""

from fractions import Fraction
from pathlib import Path

import pytest

from rfmstream.engine.deliver.config import DeliverConfig, GuardConfig, load_deliver_config
from rfmstream.engine.deliver.rates import Rate
from rfmstream.schemas.errors import ConfigError

SECRET = "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
ENVIRONMENT = {"HOOK": SECRET, "KEY": "very-secret-key"}
WEBHOOK = '[destinations.crm]\nkind = "webhook"\nurl = "https://crm.example.com/rfm"\nsecrets = [{ env = "HOOK" }]\n'
SEGMENT = '[destinations.cdp]\nkind = "segment"\nwrite_key = { env = "KEY" }\n'
KLAVIYO = (
    '[destinations.esp]\nkind = "http"\nmap = "klaviyo-events"\nsettings = { api_key = { env = "KEY" } }\n'
)


def load(folder: Path, text: str, *, without_secrets: bool = False) -> DeliverConfig:
    path = folder / "deliver.toml"
    path.write_text(text, encoding="utf-8")
    return load_deliver_config(path, environment=ENVIRONMENT, without_secrets=without_secrets)


def test_all_of_it(tmp_path: Path) -> None:
    more = """
rate = ["10/1s"]
concurrency = 3
coalesce = "latest"
guard = "2.5%"
guard_at_least = 100
timeout = "5s"
start = "earliest"
filter = { to = ["011", "none"], reasons = ["recency_expired"], modes = ["live", "replay"] }
"""
    config = load(
        tmp_path,
        'customers = 7\nlisten = "off"\n[kafka]\napp_id = "shop"\n' + WEBHOOK + more + SEGMENT + KLAVIYO,
    )
    crm, cdp, esp = config.destinations
    assert config.broker.group(crm.name) == "shop.deliver.crm"
    assert (config.customers, config.listen) == (7, None)
    assert crm.pace.rates == (Rate(10, 1.0),)
    assert (crm.pace.batch, crm.pace.concurrency, crm.pace.coalesce) == (1, 3, True)
    assert crm.guard == GuardConfig(Fraction(1, 40), 100, 1.0)
    assert (crm.timeout_s, crm.start) == (5.0, "earliest")
    assert crm.filter.tiers == ("011", "none")
    assert cdp.form.url == "https://api.segment.io/v1/batch"
    assert esp.pace.rates == (Rate(350, 1.0), Rate(3500, 60.0))
    assert esp.form.url == "https://a.klaviyo.com"


def test_secrets_are_in_no_text_of_a_configuration(tmp_path: Path) -> None:
    config = load(tmp_path, WEBHOOK + SEGMENT + KLAVIYO)
    shown = repr(config) + str(config)
    assert "very-secret-key" not in shown
    assert SECRET not in shown
    assert "c2VjcmV0" not in shown


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text(SECRET + "\n", encoding="utf-8")
    load(tmp_path, WEBHOOK.replace('{ env = "HOOK" }', f'{{ file = "{tmp_path}/hook" }}'))


def test_a_file_can_be_checked_where_its_secrets_are_not(tmp_path: Path) -> None:
    text = (WEBHOOK + SEGMENT + KLAVIYO).replace('"HOOK"', '"ABSENT"').replace('"KEY"', '"ABSENT"')
    assert len(load(tmp_path, text, without_secrets=True).destinations) == 3


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("listen = 'x'\n" + WEBHOOK, "listen", "is not host:port"),
        ("", "destinations", "is missing"),
        ("[destinations]\n", "destinations", "is empty"),
        (WEBHOOK.replace("crm]", '"a b"]'), "destinations.a b", "no name for a destination"),
        (WEBHOOK.replace('"webhook"', '"webhok"'), "destinations.crm.kind", "is not one of"),
        (WEBHOOK + "ratte = 1", "destinations.crm.ratte", "did you mean rate?"),
        (WEBHOOK + 'map = "slack"', "destinations.crm.map", "unknown key"),
        (WEBHOOK + 'rate = ["1"]', "destinations.crm.rate", "is no rate"),
        (WEBHOOK + "batch = 5", "destinations.crm.batch", "carries one event"),
        (WEBHOOK + 'guard = "0%"', "destinations.crm.guard", "no share"),
        (WEBHOOK + 'guard = "101%"', "destinations.crm.guard", "no share"),
        (WEBHOOK + "guard_at_least = 5", "destinations.crm.guard_at_least", "without a guard"),
        (WEBHOOK + 'timeout = "5"', "destinations.crm.timeout", "is no duration"),
        (WEBHOOK + 'timeout = "0ms"', "destinations.crm.timeout", "out of range"),
        (WEBHOOK + 'filter = { too = ["011"] }', "destinations.crm.filter.too", "did you mean to?"),
        (WEBHOOK + 'filter = { modes = ["love"] }', "destinations.crm.filter.modes", "is not one of"),
        (
            WEBHOOK + 'headers = { authorization = "x" }',
            "destinations.crm.headers.authorization",
            "is a secret",
        ),
        (WEBHOOK.replace("{ env", "{ enf"), "destinations.crm.secrets[1].enf", "did you mean env?"),
        (WEBHOOK.replace("HOOK", "NOPE"), "destinations.crm.secrets[1].env", "NOPE is not set"),
        (WEBHOOK.replace("HOOK", "KEY"), "destinations.crm.secrets[1]", "no secret of 24 to 64 bytes"),
        (
            WEBHOOK.replace('[{ env = "HOOK" }]', f'["{SECRET}"]'),
            "destinations.crm.secrets[1]",
            "is a secret",
        ),
        (WEBHOOK.replace('[{ env = "HOOK" }]', "[]"), "destinations.crm.secrets", "must be a list"),
        (SEGMENT.replace('{ env = "KEY" }', '"k"'), "destinations.cdp.write_key", "is a secret"),
        (KLAVIYO.replace('{ env = "KEY" }', '"k"'), "destinations.esp.settings.api_key", "is a secret"),
        (KLAVIYO + 'filter = { events = ["x"] }', "destinations.esp.filter.events", "is not one of"),
        (KLAVIYO.replace("klaviyo-events", "klaviyo-event"), None, "no such delivery map"),
        ("[kafka]\nsasl_password = 'x'\n" + WEBHOOK, "kafka.sasl_password", "is a secret"),
        ("[kafka]\nbootstrap_servers = 'x'\n" + WEBHOOK, "kafka.bootstrap_servers", "is not host:port"),
        ("[kafka]\nsecurity_protocol = 'sasl_ssl'\n" + WEBHOOK, "kafka.security_protocol", "needs a user"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, key: str | None, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    if key is not None:
        assert caught.value.key == key


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example.com/",
        "https://localhost/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://10.1.2.3:8443/",
        "https://169.254.169.254/latest/meta-data",
        "https://user:pass@crm.example.com/",
        "ftp://crm.example.com/",
        "https:///x",
        "crm",
    ],
)
def test_urls_that_lead_inside_or_are_not_encrypted_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, WEBHOOK.replace("https://crm.example.com/rfm", url))
    assert caught.value.key == "destinations.crm.url"


def test_allow_private_lets_them_through(tmp_path: Path) -> None:
    load(tmp_path, WEBHOOK.replace("https://crm.example.com", "http://127.0.0.1:9") + "allow_private = true")
