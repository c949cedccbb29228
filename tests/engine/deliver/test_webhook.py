"""Signatures are verified by what receivers use: standardwebhooks of PyPI, and of npm where it is."""

import base64
import json
import shutil
import subprocess
import time
from pathlib import Path

import orjson
import pytest
from deliver_events import change
from standardwebhooks import Webhook, WebhookVerificationError

from rfmstream.engine.deliver.forms import event_key
from rfmstream.engine.deliver.model import Answer, Delivered, Event, Item, Parked, Refused, Request, TryAgain
from rfmstream.engine.deliver.webhook import WebhookForm, secret_bytes

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 24).decode()
NOW_S = 1_800_000_000.9


def form(*secrets: str) -> WebhookForm:
    keys = [secret_bytes(secret) for secret in secrets]
    assert None not in keys
    return WebhookForm("https://example.com/hook", [key for key in keys if key], {"x-shop": "hk"})


def request_of(event: Event, *secrets: str, now_s: float = NOW_S) -> Request:
    one = form(*secrets)
    parts = one.parts(event)
    return one.request([Item(event, event.customer_id, parts, len(parts[0]))], now_s)


def events(count: int) -> list[Event]:
    ids = ("c.1", "a.b.c@example.com", "😀", "顾客/7", "x y\tz", "00042", '"quoted"', "é" * 80)
    return [change(f"{ids[number % len(ids)]}-{number}", number + 1) for number in range(count)]


def test_ten_thousand_signatures_verify_while_secrets_rotate() -> None:
    now_s = time.time()
    old, new = Webhook(OLD), Webhook(NEW)
    for number, event in enumerate(events(10_000)):
        secrets = ((OLD,), (OLD, NEW), (NEW,))[number * 3 // 10_000]
        request = request_of(event, *secrets, now_s=now_s)
        for secret, verifier in ((OLD, old), (NEW, new)):
            if secret in secrets:
                assert verifier.verify(request.body, dict(request.headers))
            else:
                with pytest.raises(WebhookVerificationError):
                    verifier.verify(request.body, dict(request.headers))


def test_ids_hold_no_dot_and_nothing_of_a_user_and_stay_the_same() -> None:
    seen = set()
    for event in events(1000):
        key = event_key(event)
        assert key == event_key(event)
        assert key.isascii()
        assert key.replace("_", "").isalnum()
        seen.add(key)
        for secret in (OLD, NEW):
            assert request_of(event, secret, now_s=5).headers["webhook-id"] == key
    assert len(seen) == 1000


def test_the_body_is_a_structured_cloudevent_whose_data_is_what_came() -> None:
    event = change("c.1😀", 3)
    request = request_of(event, OLD)
    body = orjson.loads(request.body)
    assert event.raw in request.body
    assert body == {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": "io.rfmstream.tier-changed.v1",
        "subject": "c.1😀",
        "time": event.time,
        "datacontenttype": "application/json",
        "data": event.data,
    }
    assert request.headers["content-type"].startswith("application/cloudevents+json")
    assert request.headers["webhook-timestamp"] == "1800000000"
    assert request.headers["x-shop"] == "hk"
    assert "secret" not in repr(request)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_c2hvcnQ=", "not base 64", "whsec_" + "QUFB" * 22])
def test_a_secret_of_another_length_is_none(secret: str) -> None:
    assert secret_bytes(secret) is None


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Delivered()),
        (204, Delivered()),
        (302, TryAgain("HTTP 302")),
        (400, Refused(400)),
        (401, Parked("it answered 401: it does not know our credentials")),
        (404, Refused(404)),
        (408, TryAgain("HTTP 408")),
        (410, Parked("it answered 410 Gone")),
        (425, TryAgain("HTTP 425")),
        (429, TryAgain("HTTP 429")),
        (500, TryAgain("HTTP 500")),
        (503, TryAgain("HTTP 503")),
        (0, TryAgain("HTTP 0")),
    ],
)
def test_what_an_answer_means(status: int, verdict: object) -> None:
    assert form(OLD).verdict([], Answer(status)) == verdict


SCRIPT = """
const { Webhook } = require("standardwebhooks");
const lines = require("fs").readFileSync(0, "utf8").trim().split("\\n");
for (const line of lines) {
  const { secret, body, headers } = JSON.parse(line);
  new Webhook(secret).verify(body, headers);
}
console.log(lines.length);
"""


@pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason="there is no node")
def test_signatures_verify_with_the_library_of_npm(tmp_path: Path) -> None:
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "standardwebhooks@1"]
    if subprocess.run(install, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("npm has no standardwebhooks here")
    now_s = time.time()
    lines = []
    for number, event in enumerate(events(10_000)):
        request = request_of(event, *((OLD, NEW) if number % 2 else (OLD,)), now_s=now_s)
        secret = NEW if number % 2 else OLD
        lines.append(
            json.dumps({"secret": secret, "body": request.body.decode(), "headers": dict(request.headers)})
        )
    done = subprocess.run(
        ["node", "-e", SCRIPT],  # noqa: S607
        cwd=tmp_path,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "10000", done.stderr[-2000:]
