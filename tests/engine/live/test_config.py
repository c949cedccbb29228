"""Settings: which source wins, what is refused and in which words, and that no secret is shown."""

from pathlib import Path
from typing import Any

import pytest

from rfmstream.engine.live.config import WorkerConfig, load_client_config, load_worker_config
from rfmstream.engine.live.settings import WORKER_SETTINGS
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.schemas.errors import ConfigError

HOME = {"XDG_STATE_HOME": "/state"}
SASL = {"RFMSTREAM_SECURITY_PROTOCOL": "sasl_ssl", "RFMSTREAM_SASL_USERNAME": "ann"}


def load(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> WorkerConfig:
    return load_worker_config(flags or {}, environment=HOME | (environment or {}), file=file)


def refusal(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags, environment, file)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "worker.toml"
    path.write_text(
        'app_id = "of-the-file"\ninput_topics = ["a", "b"]\ncheckpoint_interval_s = 5\nresegment = true\n',
        encoding="utf-8",
    )
    return path


def test_every_default_is_the_dataclass_own() -> None:
    loaded = load()
    own = WorkerConfig(threads=loaded.threads, checkpoints="/state/rfmstream/rfmstream")
    assert loaded == own
    assert loaded.threads >= 1


def test_flag_over_environment_over_file_over_default(toml: Path) -> None:
    assert load(file=toml).app_id == "of-the-file"
    environment = {"RFMSTREAM_APP_ID": "of-the-environment"}
    assert load(environment=environment, file=toml).app_id == "of-the-environment"
    assert load({"app_id": "of-the-flag"}, environment, toml).app_id == "of-the-flag"
    assert load().app_id == "rfmstream"


def test_every_source_writes_every_type(toml: Path) -> None:
    from_file = load(file=toml)
    from_environment = load(
        environment={
            "RFMSTREAM_INPUT_TOPICS": "a, b",
            "RFMSTREAM_CHECKPOINT_INTERVAL_S": "5",
            "RFMSTREAM_RESEGMENT": "true",
        }
    )
    from_flags = load({"input_topics": "a,b", "checkpoint_interval_s": "5", "resegment": True})
    for config in (from_file, from_environment, from_flags):
        assert (config.input_topics, config.checkpoint_interval_s, config.resegment) == (("a", "b"), 5, True)
    assert load({"resegment": False}, file=toml).resegment is False


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("bootstrap_servers", "broker", "'broker' is not host:port"),
        ("bootstrap_servers", "broker:0", "'broker:0' is not host:port"),
        ("bootstrap_servers", "a:1,a:1", "names something twice"),
        ("bootstrap_servers", " , ", "is empty; name at least one server"),
        ("input_topics", "or ders", "'or ders' is no topic's name"),
        ("changes_topic", "..", "'..' is no topic's name"),
        ("app_id", "my app", "'my app' is not a group's name"),
        ("checkpoint_interval_s", "0", "0 is out of range; write a number from 1 to 86400"),
        ("checkpoint_interval_s", "5.5", "'5.5' is not a whole number"),
        ("threads", "-1", "'-1' is not a whole number"),
        ("clock", "logs", "'logs' is not one of log, event; did you mean log?"),
        ("structured", "maybe", "'maybe' is neither true nor false"),
        ("listen", "8765", "'8765' is not host:port"),
        ("listen", "127.0.0.1:70000", "is not host:port"),
        ("ce_source", "a b", "'a b' is not a URI reference"),
        ("sasl_mechanism", "OAUTHBEARER", "'OAUTHBEARER' is not one of PLAIN"),
        ("checkpoints", "", "is empty"),
    ],
)
def test_a_bad_value_is_named_with_its_source(name: str, text: str, problem: str, tmp_path: Path) -> None:
    by_flag = refusal({name: text})
    assert by_flag.startswith(f"--{name.replace('_', '-')}: ")
    assert problem in by_flag
    by_environment = refusal(environment={f"RFMSTREAM_{name.upper()}": text})
    assert by_environment.startswith(f"RFMSTREAM_{name.upper()}: ")
    file = tmp_path / "worker.toml"
    file.write_text(f'{name} = "{text}"', encoding="utf-8")
    by_file = refusal(file=file)
    assert by_file.startswith(f"{file}: {name}: ")
    assert problem in by_file


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('chekpoints = "x"', encoding="utf-8")
    assert refusal(file=file) == f"{file}: chekpoints: unknown key; did you mean checkpoints?"
    text = refusal(environment={"RFMSTREAM_CHEKPOINTS": "x"})
    assert text == "RFMSTREAM_CHEKPOINTS: unknown setting; did you mean RFMSTREAM_CHECKPOINTS?"


def test_what_kubernetes_puts_beside_a_service_is_let_be() -> None:
    names = ("SERVICE_HOST", "PORT", "PORT_8765_TCP", "SERVICE_PORT_HTTP")
    assert load(environment={f"RFMSTREAM_{name}": "tcp://10.0.0.1:8765" for name in names}) == load()


@pytest.mark.parametrize("value", ["1.5", "{a = 1}", "[1]", "2026-01-01"])
def test_a_value_of_another_type_is_refused(value: str, tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(f"threads = {value}", encoding="utf-8")
    assert refusal(file=file).startswith(f"{file}: threads: must be a string, a whole number")


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("open sesame\n", encoding="utf-8")
    for variable, text in (("SASL_PASSWORD", "open sesame"), ("SASL_PASSWORD_FILE", str(secret))):
        config = load(environment={**SASL, f"RFMSTREAM_{variable}": text})
        assert config.client.sasl_password == "open sesame"  # noqa: S105 - the test's own
        assert "sesame" not in repr(config)
    both = {**SASL, "RFMSTREAM_SASL_PASSWORD": "x", "RFMSTREAM_SASL_PASSWORD_FILE": str(secret)}
    assert refusal(environment=both).startswith("RFMSTREAM_SASL_PASSWORD_FILE: is set beside")
    missing = {**SASL, "RFMSTREAM_SASL_PASSWORD_FILE": str(tmp_path / "none")}
    assert "cannot be read (No such file or directory)" in refusal(environment=missing)


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('sasl_password = "open sesame"', encoding="utf-8")
    text = refusal(file=file)
    assert "sasl_password: is a secret; put it into RFMSTREAM_SASL_PASSWORD" in text
    assert "sesame" not in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"security_protocol": "sasl_ssl"}, "--security-protocol: needs a user; set sasl_username"),
        (
            {"security_protocol": "sasl_ssl", "sasl_username": "ann"},
            "--security-protocol: needs a password; set RFMSTREAM_SASL_PASSWORD",
        ),
        ({"sasl_username": "ann"}, "--sasl-username: has no effect without SASL"),
        ({"tls_ca_file": "ca.pem"}, "--tls-ca-file: has no effect without TLS"),
        ({"security_protocol": "ssl", "tls_ca_file": "/no/ca.pem"}, "/no/ca.pem cannot be read"),
        ({"until_end": True}, "--until-end: needs the clock of the events; set clock to event"),
        ({"as_of": "2026-01-01"}, "--as-of: needs an end; set until_end"),
        ({"changes_topic": "orders.v1"}, "--changes-topic: orders.v1 is input_topics already"),
        ({"input_topics": "rfm.clock.v1"}, "--input-topics: rfm.clock.v1 is clock_topic already"),
        ({"current_topic": "x", "changes_topic": "x"}, "--current-topic: x is changes_topic already"),
        ({"ruleset": "rfm9"}, "rfm9"),
        ({"time_zone": "Mars/Base"}, "Mars/Base"),
    ],
)
def test_settings_that_contradict_each_other(flags: dict[str, Any], said: str) -> None:
    assert said in refusal(flags)


def test_the_end_is_read_in_the_zone_of_the_ruleset() -> None:
    flags = {"clock": "event", "until_end": True, "as_of": "2026-01-01", "time_zone": "Asia/Shanghai"}
    assert load(flags).as_of_us == 1_767_196_800_000_000
    assert "'soon' is not an instant" in refusal({**flags, "as_of": "soon"})


def test_where_to_listen() -> None:
    assert load({"listen": "off"}).listen is None
    assert load({"listen": "[::1]:0"}).listen == ("::1", 0)
    assert load().listen == ("127.0.0.1", 8765)


def test_the_source_of_events_follows_the_app() -> None:
    assert load({"app_id": "shop"}).ce_source == "/rfmstream/shop"
    assert load({"ce_source": "//shop.example/rfm"}).ce_source == "//shop.example/rfm"


def test_a_client_reads_the_worker_s_file(toml: Path) -> None:
    assert load_client_config({"bootstrap_servers": "b:9"}, environment={}, file=toml) == ClientConfig(
        bootstrap_servers=("b:9",)
    )


def test_names_are_told_apart() -> None:
    names = [setting.name for setting in WORKER_SETTINGS]
    assert len(set(names)) == len(names)
    assert {setting.name for setting in WORKER_SETTINGS if setting.secret} == {
        "listen_token",
        "sasl_password",
        "schema_registry_auth",
        "tls_key_password",
    }


def test_data_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    found = load({"listen_data": "127.0.0.1:0", "listen_url": "https://a.example:1/"})
    assert (found.listen_data, found.listen_url) == (("127.0.0.1", 0), "https://a.example:1")
    with pytest.raises(ConfigError, match=r"--listen-data: .* set RFMSTREAM_LISTEN_TOKEN"):
        load({"listen_data": "0.0.0.0:8766"})
    environment = {"RFMSTREAM_LISTEN_TOKEN": "secret"}
    assert load({"listen_data": "0.0.0.0:8766"}, environment=environment).listen_token == "secret"  # noqa: S105
    with pytest.raises(ConfigError, match="--listen-data: has no effect where nothing is served"):
        load({"listen": "off", "listen_data": "127.0.0.1:0"})
    with pytest.raises(ConfigError, match="--listen-tls-key-file: is of no use without a certificate"):
        load({"listen_tls_key_file": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"--listen-tls-cert-file: .*absent.pem cannot be read"):
        load({"listen_tls_cert_file": str(tmp_path / "absent.pem")})
    with pytest.raises(ConfigError, match=r"--listen-url: 'a.example' is no URL"):
        load({"listen_url": "a.example"})


def test_files_of_history_and_views_to_resegment() -> None:
    config = load(
        {"ruleset": ("rfm8", "scores4"), "view_history": "a.parquet,b", "resegment_view": "scores4"}
    )
    assert config.view_history == ("a.parquet", "b")
    assert config.resegment_view == ("scores4",)
    assert (load().view_history, load().resegment_view) == (None, ())
    assert "no effect without files; set view_history" in refusal({"view_history_map": "cdnow"})
    assert "there is no view x; name one of rfm8" in refusal({"resegment_view": "x"})


def test_the_rules_of_every_view_are_at_hand(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nextends = "types7"\n')
    plan = tmp_path / "views.toml"
    plan.write_text(
        '[[view]]\nruleset = "mine.toml"\n[[view]]\nruleset = "groups3"\n[[view]]\nname = "b"\nruleset = "groups3"\n'
    )
    for config in (load({"plan": str(plan)}), load({"ruleset": ("rfm8", "scores4")}), load()):
        assert {view.ruleset.identity for view in config.plan.views} == config.rules.keys()
        for view in config.plan.views:
            assert config.rules[view.ruleset.identity].name == view.ruleset.name
