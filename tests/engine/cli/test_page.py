"""`rfmstream page` as a process: two workers as one page, one that dies, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from served_workers import serving, watched

from rfmstream import Engine, Ruleset, load_ruleset
from rfmstream.engine.cli.app import cli
from rfmstream.engine.insight.report.live_page import LivePage
from rfmstream.engine.insight.report.words import LANGUAGES
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.model import Source

ANSWER_S = 60


def board_of(number: int, customers: list[str], ruleset: Ruleset) -> Board:
    """Return the board of a worker that has one of two partitions."""
    engine = Engine(ruleset, mode="live", threads=1)
    rows = {
        "customer_id": customers,
        "order_id": ["o1"] * len(customers),
        "occurred_at": ["2026-01-01T10:00:00Z"] * len(customers),
        "amount": ["10.00"] * len(customers),
    }
    feed = Feed(ruleset)
    feed.add(engine.step(pa.table(rows)).changes)
    board = Board(ruleset, "event", joined=True, feed=feed)
    board.expected = [Source("orders.v1", 0), Source("orders.v1", 1)]
    board.partitions = {Source("orders.v1", number): watched(engine)}
    return board


@contextmanager
def paged(*urls: str) -> Iterator[str]:
    """Run the command on a free port, and give the page's URL."""
    words = [word for url in urls for word in ("--worker", url)]
    command = [sys.executable, "-m", "rfmstream", "page", *words, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:"), line
        yield line.removeprefix("open ").strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(ANSWER_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def asked(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:  # noqa: S310 - of the test
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def state_when(url: str, **wanted: object) -> dict[str, Any]:
    until = time.monotonic() + ANSWER_S
    while True:
        state: dict[str, Any] = json.loads(asked(f"{url}/page/state")[1])
        if all(state[name] == value for name, value in wanted.items()):
            return state
        assert time.monotonic() < until, state
        time.sleep(0.05)


def test_two_workers_are_one_page() -> None:
    ruleset = load_ruleset("rfm8")
    first = board_of(0, ["ann", "東京/3"], ruleset)
    second = board_of(1, ["cid"], ruleset)
    with (
        serving(first, LivePage()) as here,
        serving(second, LivePage()) as there,
        paged(here, there) as url,
    ):
        state = state_when(url, ready=True, customers=3)
        assert [one["name"] for one in state["partitions"]] == ["orders.v1-0", "orders.v1-1"]
        assert (state["missing"], state["expected"], state["changes"]) == ([], 2, 3)
        assert {change["customer_id"] for change in state["newest"]} == {"ann", "cid", "東京/3"}
        assert {tier["id"]: tier["customers"] for tier in state["tiers"]}["100"] == 3
        for id_ in ("ann", "cid", "%E6%9D%B1%E4%BA%AC%2F3"):
            status, body = asked(f"{url}/customers/{id_}")
            assert (status, json.loads(body)["explain"]["tier"]) == (200, "100")
            assert len(json.loads(asked(f"{url}/customers/{id_}/changes")[1])["changes"]) == 1
        assert asked(f"{url}/customers/nobody")[0] == 404
        views = json.loads(asked(f"{url}/page/views")[1])
        assert [view["key"] for view in views["views"]][:2] == ["tiers", "grid"]
        status, body = asked(url)
        assert (status, b"ann" in body) == (200, False)


def test_a_worker_that_dies_is_told_of() -> None:
    ruleset = load_ruleset("rfm8")
    with ExitStack() as stack, serving(board_of(0, ["ann"], ruleset), LivePage()) as here:
        there = stack.enter_context(serving(board_of(1, ["cid"], ruleset), LivePage()))
        with paged(here, there) as url:
            state_when(url, ready=True, customers=2)
            stack.close()
            state = state_when(url, ready=False, customers=1)
            assert state["notes"] == [{"key": "worker_silent", "count": 1}]
            # It may have the customer: nobody says that there is none.
            assert asked(f"{url}/customers/cid")[0] == 503
            assert asked(f"{url}/customers/ann")[0] == 200
        result = CliRunner().invoke(cli, ["page", "--worker", here, "--worker", there])
        assert (result.exit_code, "no answer" in result.stderr) == (1, True)


def test_what_is_refused() -> None:
    rfm8 = load_ruleset("rfm8")
    with serving(board_of(0, ["ann"], rfm8), LivePage()) as here:
        result = CliRunner().invoke(cli, ["page", "--worker", here, "--listen", "0.0.0.0:0"])
        assert (result.exit_code, "--listen: 0.0.0.0 is not on loopback" in result.stderr) == (2, True)
        result = CliRunner().invoke(cli, ["page", "--worker", here, "--ruleset", "types7"])
        assert (result.exit_code, "was decided by rfm8, not by types7" in result.stderr) == (2, True)
        with serving(board_of(1, ["cid"], load_ruleset("types7")), LivePage()) as there:
            result = CliRunner().invoke(cli, ["page", "--worker", here, "--worker", there])
        assert (result.exit_code, "different rulesets" in result.stderr) == (4, True)
    result = CliRunner().invoke(cli, ["page", "--worker", "worker-1"])
    assert (result.exit_code, "is no URL of a worker" in result.stderr) == (2, True)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_shell_holds_no_data_and_its_policy_names_its_parts(lang: str) -> None:
    html, policy = LivePage(lang).shell()
    assert f'data-lang="{lang}"' in html
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert html.count("<script") == 2
