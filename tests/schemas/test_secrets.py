"""Credentials are left out of whatever is shown, and nothing else is."""

import logging
from pathlib import Path

import pytest

from rfmstream.engine.live.logs import JsonFormatter, TextFormatter
from rfmstream.engine.live.store import Store
from rfmstream.schemas.errors import ConfigError, StateError, TransportError
from rfmstream.schemas.secrets import masked

SECRET = "wJalrXUtnFEMI/K7MDENG"  # noqa: S105 - nobody's


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"s3://AKIA:{SECRET}@bucket/rfm?region=eu", "s3://***@bucket/rfm?region=eu"),
        ("s3://AKIA:p%2Fq@bucket: no answer", "s3://***@bucket: no answer"),
        (f"s3:/AKIA:{SECRET}@bucket/rfm: no such folder", "s3:/***@bucket/rfm: no such folder"),
        ("https://user:pw@shop.example:8443/x", "https://***@shop.example:8443/x"),
        ("https://token@shop.example/x", "https://***@shop.example/x"),
        ("'https://u:p@h/a', then 'sftp://v:q@i/b'", "'https://***@h/a', then 'sftp://***@i/b'"),
        ("bootstrap_servers: ann:pw@broker:9092: no host", "bootstrap_servers: ***@broker:9092: no host"),
        ("https://h/x?region=eu&X-Amz-Signature=abc&n=1", "https://h/x?region=eu&X-Amz-Signature=***&n=1"),
        ("https://h/x?access_key=abc;secret_key=d", "https://h/x?access_key=***;secret_key=***"),
        ("s3://b/?endpoint_override=h&api_token=t", "s3://b/?endpoint_override=h&api_token=***"),
        ('username="ann" password="p w";', 'username="ann" password=***;'),
        ("sasl.password=abc and more", "sasl.password=*** and more"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8765/snapshot?as_of=2026-01-01T00:00:00Z",
        "s3://bucket/path/2026",
        "http://host:8080, as ann@shop.example says",
        "c1@shop.example is no customer id: ann@shop.example",
        "orders.csv: row 3: amount=1.00, key=value, tokens=3",
        "https://shop.example/a?monkey=1&keyboard=2",
        "file:///home/x@y/checkpoints",
    ],
)
def test_what_holds_none_is_left_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_errors_hold_none() -> None:
    place = f"s3://AKIA:{SECRET}@bucket"
    for error in (
        StateError("cannot be reached", path=place),
        TransportError(f"{place} gave no answer", endpoint=place),
        ConfigError(f"{place!r} is no place", key="checkpoints", fix=f"name another than {place}"),
    ):
        assert SECRET not in str(error) + error.problem + repr(vars(error).get("path", ""))
        assert "s3://***@bucket" in str(error)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_log_lines_hold_none(formatter: logging.Formatter) -> None:
    try:
        Path(f"https://ann:{SECRET}@shop.example").read_text()
    except OSError as error:
        trace = type(error), error, error.__traceback__
    record = logging.makeLogRecord(
        {"msg": "at %s", "args": (f"s3://K:{SECRET}@b",), "path": f"s3://K:{SECRET}@b", "exc_info": trace}
    )
    line = formatter.format(record)
    assert SECRET not in line
    assert line.count("***") >= 2


@pytest.mark.parametrize("uri", [f"s3://AKIA:{SECRET}@bucket/x", "nosuch://AKIA:sEcReT@bucket/x"])
def test_a_place_for_checkpoints_that_is_none(uri: str) -> None:
    with pytest.raises(StateError) as error:
        Store(uri, app_id="a").check() if "nosuch" in uri else Store(f"{uri} x", app_id="a").check()
    assert not any(word in str(error.value) for word in (SECRET, "sEcReT", "AKIA", "K7MDENG"))
