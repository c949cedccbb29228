"""The live commands where no broker answers: what they teach, and what they refuse."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rfmstream import Engine
from rfmstream.engine.cli.app import cli
from rfmstream.engine.cli.show import change_line
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.settings import WORKER_SETTINGS
from rfmstream.engine.live.store import Store

COMMAND = [sys.executable, "-c", "from rfmstream.engine.cli import main; main()"]


@pytest.fixture
def nobody() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run(*arguments: object, **environment: str) -> Result:
    words = [str(argument) for argument in arguments]
    # Those of whoever runs the tests are not the tests'.
    own = {name: None for name in os.environ if name.startswith("RFMSTREAM_")}
    return CliRunner(env={"COLUMNS": "120", **own, **environment}).invoke(cli, words, prog_name="rfmstream")


def refused(result: Result, code: int, words: str) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


def test_help_names_every_setting_and_its_default() -> None:
    shown = " ".join(run("worker", "--help").output.split())
    for setting in WORKER_SETTINGS:
        if setting.secret:
            assert setting.flag not in shown
            assert setting.variable in shown
        else:
            assert f"{setting.flag} " in shown
            assert setting.default is None or f"[default: {setting.default}]" in shown, setting.name


def test_a_bad_setting_is_one_line(tmp_path: Path) -> None:
    refused(
        run("worker", "--clock", "logs"),
        2,
        "rfmstream: --clock: 'logs' is not one of log, event; did you mean",
    )
    refused(run("worker", RFMSTREAM_THREADS="many"), 2, "RFMSTREAM_THREADS: 'many' is not a whole number")
    file = tmp_path / "worker.toml"
    file.write_text("thread = 2", encoding="utf-8")
    refused(run("worker", "--config", file), 2, f"{file}: thread: unknown key; did you mean threads?")
    refused(run("tail", "--config", file), 2, f"{file}: thread: unknown key")
    refused(
        run("worker", "--config", tmp_path / "none.toml"), 2, "cannot be read (No such file or directory)"
    )


def test_no_password_on_the_command_line() -> None:
    result = run("worker", "--sasl-password", "open sesame")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_without_a_broker_produce_and_tail_say_so(nobody: str, history: Path) -> None:
    said = f"rfmstream: {nobody}: the topics cannot be read: no broker answers"
    refused(run("tail", "--bootstrap-servers", nobody), 1, said)
    refused(run("tail", RFMSTREAM_BOOTSTRAP_SERVERS=nobody), 1, said)
    refused(run("produce", history, "--bootstrap-servers", nobody, "--currency", "EUR"), 1, said)


def test_produce_refuses_before_it_connects(nobody: str, history: Path, tmp_path: Path) -> None:
    reach = ("--bootstrap-servers", nobody)
    refused(run("produce", history, *reach, "--currency", "XYZ"), 2, "XYZ")
    refused(run("produce", history, *reach, "--map", "no-such-map"), 2, "no-such-map")
    refused(run("produce", tmp_path / "none.csv", *reach), 3, "none.csv")
    for number in ("0", "nan", "inf"):
        assert run("produce", history, *reach, "--rate", number).exit_code == 2
    assert run("produce", *reach).exit_code == 2


def test_a_worker_without_a_broker_says_so(nobody: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "worker", "--bootstrap-servers", nobody, "--listen", "off"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    fix = "start it, or check bootstrap_servers and security_protocol"
    assert done.stderr == f"rfmstream: {nobody}: the topics cannot be read: no broker answers; {fix}\n"


def test_a_worker_whose_port_is_taken_says_so_after_the_topics_or_not_at_all(nobody: str) -> None:
    # A wrong address is seen before anybody is asked.
    refused(
        run("worker", "--bootstrap-servers", nobody, "--listen", "8765"),
        2,
        "--listen: '8765' is not host:port",
    )


def test_snapshot_of_nothing_or_of_two_things(tmp_path: Path) -> None:
    out = tmp_path / "tiers.csv"
    for arguments in ((), ("--checkpoint", tmp_path, "--worker", "http://127.0.0.1:1")):
        result = run("snapshot", *arguments, "--out", out)
        assert result.exit_code == 2
        assert "name one of --checkpoint, --worker and --changes" in result.stderr
    worker = ("--worker", "http://127.0.0.1:1", "--out", out)
    assert run("snapshot", *worker, "--ruleset", "rfm8").exit_code == 2
    refused(run("snapshot", *worker), 1, "http://127.0.0.1:1: no snapshot comes from there")
    refused(
        run("snapshot", "--checkpoint", tmp_path, "--out", out), 4, "there are no checkpoints of partitions"
    )
    assert not out.exists()


def test_a_change_in_one_line() -> None:
    change = {
        "customer_id": "00042",
        "effective_at": "2026-02-05T00:00:00.000000Z",
        "from_tier": "101",
        "from_tier_en": "High-value Developing",
        "to_tier": "001",
        "to_tier_en": "High-value Win-back",
        "reason": "recency_expired",
        "order_id": None,
        "frequency": 2,
        "monetary_minor": 130_000,
        "currency": "CNY",
        "mode": "live",
    }
    assert change_line(change, "Asia/Shanghai") == (
        "2026-02-05 08:00:00  customer 00042: 101 High-value Developing → 001 High-value Win-back  "
        "(no longer recent; 2 orders, 1,300.00 CNY)"
    )
    first = {
        **change,
        "from_tier": None,
        "from_tier_en": None,
        "reason": "first_order",
        "order_id": "a1",
        "mode": "replay",
    }
    assert change_line(first, "UTC") == (
        "2026-02-05 00:00:00  customer 00042: no tier → 001 High-value Win-back  "
        "(first order a1; 2 orders, 1,300.00 CNY)  (replay)"
    )
    hostile = change_line({**first, "customer_id": "\x1b[2J", "order_id": "\n"}, "UTC")
    assert r"customer \x1b[2J: no tier" in hostile
    assert r"(first order \n; " in hostile


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_can_be_stopped_while_it_looks_for_a_broker(sent: int, tmp_path: Path) -> None:
    with socket.socket() as silent:
        # It takes connections and never answers.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*COMMAND, "worker", "--bootstrap-servers", address, "--listen", "off"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.2)
            process.send_signal(sent)
            _, err = process.communicate(timeout=30)
    assert "Traceback" not in err


def test_checkpoints_of_another_app_are_no_state_of_ours(tmp_path: Path) -> None:
    store, out = tmp_path / "checkpoints", tmp_path / "tiers.csv"
    Store(str(store), app_id="shop").save(Source("orders.v1", 0), Engine("rfm8").frozen(), 0, "law")
    words = "belongs to the application shop; name that one as the app id"
    refused(run("snapshot", "--checkpoint", store, "--out", out), 4, words)
    assert not out.exists()
    done = run("snapshot", "--checkpoint", store, "--app-id", "shop", "--out", out)
    assert (done.exit_code, done.stdout) == (0, f"0 customers of 1 partitions: {out}\n")
