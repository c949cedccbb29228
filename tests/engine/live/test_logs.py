"""Logs: lines for people and for programs."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from rfmstream.engine.live.logs import set_up_logs
from rfmstream.engine.service.client_config import ClientConfig


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(log_format: str, level: str = "info") -> list[str]:
    to = io.StringIO()
    set_up_logs(log_format, level, to=to)  # type: ignore[arg-type]
    log = logging.getLogger("rfmstream.engine.live.runner")
    log.debug("unheard unless asked for")
    log.info("recovered %s", "orders.v1-0", extra={"offset": 7, "source": ("orders.v1", 0)})
    logging.getLogger("aiokafka.consumer").info("chatter of a library")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("failed", extra={"partition": 3})
    return to.getvalue().splitlines()


@pytest.mark.usefixtures("restored")
def test_text_for_people() -> None:
    first, second, *trace = logged("text")
    assert first.endswith(
        "Z INFO    rfmstream.engine.live.runner: recovered orders.v1-0 offset=7 source=('orders.v1', 0)"
    )
    assert second.endswith("ERROR   rfmstream.engine.live.runner: failed partition=3")
    assert trace[0].startswith("Traceback")
    assert trace[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.usefixtures("restored")
def test_what_libraries_warn_of_at_every_join_is_not_heard() -> None:
    to = io.StringIO()
    set_up_logs("text", "info", to=to)
    library = logging.getLogger("aiokafka.consumer.group_coordinator")
    library.warning("Heartbeat failed for group %s because it is rebalancing", "shop")
    assert to.getvalue() == ""
    library.warning("Heartbeat failed for group %s: coordinator (node %s) is either not started", "shop", 1)
    assert "WARNING" in to.getvalue()


@pytest.mark.usefixtures("restored")
def test_json_for_programs_one_object_a_line() -> None:
    first, second = map(json.loads, logged("json"))
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "rfmstream.engine.live.runner",
        "message": "recovered orders.v1-0",
        "offset": 7,
        "source": ["orders.v1", 0],
    }
    assert (second["level"], second["message"], second["partition"]) == ("error", "failed", 3)
    assert second["exception"].endswith("ZeroDivisionError: division by zero")


@pytest.mark.usefixtures("restored")
def test_a_library_that_says_the_same_again_is_heard_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.time_ns", lambda: int(now * 1e9))

    def heard(level: str) -> list[str]:
        nonlocal now
        to = io.StringIO()
        set_up_logs("text", level, to=to)  # type: ignore[arg-type]
        library, own = logging.getLogger("aiokafka.conn"), logging.getLogger("rfmstream.engine.live.runner")
        for second in range(25):
            now = 1_000_000.0 + second
            library.error("Unable to connect to %s", f"broker-{second}")
            own.warning("no answer")
        library.error("something else")
        return [line.partition(": ")[2] for line in to.getvalue().splitlines()]

    of_library = [line for line in heard("info") if line != "no answer"]
    assert of_library == [
        "Unable to connect to broker-0",
        "Unable to connect to broker-10 repeated=9",
        "Unable to connect to broker-20 repeated=9",
        "something else",
    ]
    assert len(heard("info")) == len(of_library) + 25
    assert len(heard("debug")) == 2 * 25 + 1


@pytest.mark.usefixtures("restored")
def test_debug_lets_the_libraries_speak() -> None:
    text = "\n".join(logged("text", "debug"))
    assert "unheard unless asked for" in text
    assert "chatter of a library" in text


def test_a_client_shows_no_secret() -> None:
    config = ClientConfig(sasl_username="ann", sasl_password="open sesame", tls_key_password="open sesame")  # noqa: S106
    assert "ann" in repr(config)
    assert "sesame" not in f"{config!r} {config}"
