"""`rfmstream destinations` and the options of `rfmstream deliver`, and the receiver in examples/ at the other end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner
from deliver_receiver import Receiver, receiver
from kafka_cluster import ROOT, free_ports

from rfmstream.engine.cli.app import cli

SECRET = "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(arguments), env=environment)
    return result.exit_code, result.output


def write(folder: Path, url: str) -> str:
    path = folder / "deliver.toml"
    path.write_text(
        f"""
[destinations.crm]
kind = "webhook"
url = "{url}"
secrets = [{{ env = "CRM_SECRET" }}]
allow_private = true
[destinations.esp]
kind = "http"
map = "klaviyo-profiles"
settings = {{ api_key = {{ env = "ESP_KEY" }} }}
""",
        encoding="utf-8",
    )
    return str(path)


def trying(there: Receiver, folder: Path, *more: str) -> tuple[int, str]:
    return run(
        "destinations", "try", "crm", "--config", write(folder, f"{there.url}/hook"), *more, CRM_SECRET=SECRET
    )


def test_shipped_maps_are_listed_and_shown() -> None:
    code, text = run("destinations", "list", COLUMNS="120")
    assert code == 0
    assert "klaviyo-events" in text
    assert "Standard Webhooks" in text
    code, text = run("destinations", "show", "slack")
    assert code == 0
    assert text == (ROOT / "engine" / "deliver" / "maps" / "slack.toml").read_text(encoding="utf-8")
    code, text = run("destinations", "show", "--fields")
    assert code == 0
    assert "event_key" in text
    assert "stay_orders" in text
    code, text = run("destinations", "show", "slac")
    assert code == 2
    assert "no such delivery map" in text


def test_check_needs_no_secrets_and_says_what_would_be_sent(tmp_path: Path) -> None:
    config = write(tmp_path, "http://127.0.0.1:9/hook")
    code, text = run("destinations", "check", "--config", config)
    assert code == 0, text
    assert "crm: webhook to http://127.0.0.1:9/hook: changes and signals; no rate, 1 in a request" in text
    assert "esp: http to https://a.klaviyo.com: changes; 75 requests in 1 s, 700 requests in 60 s" in text
    code, text = run("destinations", "check", "--config", config, "--secrets", CRM_SECRET=SECRET)
    assert code == 2
    assert "ESP_KEY is not set" in text


def test_try_sends_one_made_up_event_and_shows_the_answer(tmp_path: Path) -> None:
    write(tmp_path, "http://127.0.0.1:9/")
    with receiver() as there:
        os.environ["ESP_KEY"] = "k"
        try:
            assert trying(there, tmp_path) == (0, "HTTP 204: delivered\n")
            there.answer = lambda *_: web.Response(status=400, text="no customer of that name")
            code, text = trying(there, tmp_path, "--signal", "--customer", "c9")
            assert (code, text) == (1, "HTTP 400: refused\nno customer of that name\n")
        finally:
            del os.environ["ESP_KEY"]
        change, signal = there.requests
        assert change.json["data"]["to_tier"] == "011"
        assert signal.json["data"]["customer_id"] == "c9"
        there.requests.clear()
        code, text = trying(there, tmp_path, "--dry")
        assert code == 0
        assert there.requests == []
        head, _, body = text.partition("\n\n")
        assert head.startswith(f"POST {there.url}/hook\n")
        assert "webhook-signature: ..." in head
        assert orjson.loads(body)["specversion"] == "1.0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deliver",), "Missing option '--config'"),
        (("deliver", "--config", "nope.toml"), "nope.toml"),
        (("deliver", "--config", "{config}", "release", "--config", "{config}"), "behind release"),
        (("deliver", "replay", "--config", "{config}"), "say which events"),
        (
            ("deliver", "release", "--config", "{config}", "--destination", "cmr"),
            "there is no destination cmr",
        ),
        (("destinations", "try", "cmr", "--config", "{config}", "--dry"), "there is no destination cmr"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    config = write(tmp_path, "http://127.0.0.1:9/")
    given = [argument.replace("{config}", config) for argument in arguments]
    code, text = run(*given, CRM_SECRET=SECRET, ESP_KEY="k")
    assert code == 2
    assert words in text
    assert "Traceback" not in text


def test_the_example_receiver_prints_what_is_signed_once(tmp_path: Path) -> None:
    [port] = free_ports(1)
    config = write(tmp_path, f"http://127.0.0.1:{port}/rfm")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "receiver" / "receiver.py"), "--port", str(port)],
        env={**os.environ, "RECEIVER_SECRET": SECRET},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        other = "whsec_" + "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhl"
        code, give_up = 1, time.monotonic() + 30
        while code and time.monotonic() < give_up:
            code, text = run("destinations", "try", "crm", "--config", config, CRM_SECRET=SECRET, ESP_KEY="k")
        assert code == 0, text
        assert run("destinations", "try", "crm", "--config", config, CRM_SECRET=SECRET, ESP_KEY="k")[0] == 0
        code, text = run("destinations", "try", "crm", "--config", config, CRM_SECRET=other, ESP_KEY="k")
        assert code == 1
        assert "the signature is wrong" in text
    finally:
        process.terminate()
    printed, _ = process.communicate(timeout=30)
    assert printed == (
        "webhook  2026-01-31T09:30:00.000000Z  customer rfmstream-trial: "
        "111 -> 011 Lapsing VIPs (recency_expired), playbook wake\n"
    )
