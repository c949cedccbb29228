import pickle
from pathlib import Path

import pytest

from rfmstream.schemas.errors import ConfigError, InputError, RfmError, StateError, TransportError


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConfigError("is wrong"), "is wrong"),
        (
            ConfigError("3 follows 5", file=Path("a.toml"), key="cuts.frequency", fix="sort them"),
            "a.toml: cuts.frequency: 3 follows 5; sort them",
        ),
        (
            InputError("no such column", source="o.csv", row=0, fix="use a map"),
            "o.csv: row 0: no such column; use a map",
        ),
        (StateError("checksum differs", path=Path("ckpt")), "ckpt: checksum differs"),
        (TransportError("no answer", endpoint="b:9092", retries=1), "b:9092: no answer after 1 retry"),
        (TransportError("no answer", retries=3, fix="check it"), "no answer after 3 retries; check it"),
    ],
)
def test_an_error_is_one_sentence(error: RfmError, sentence: str) -> None:
    assert str(error) == sentence
    assert isinstance(error, RfmError)


def test_what_an_error_quotes_neither_controls_a_terminal_nor_fills_it() -> None:
    assert str(ConfigError("no \x1b[2J\n\u202e", key="\udcff")) == r"\udcff: no \x1b[2J\n\u202e"
    assert str(ConfigError("客户")) == "客户"
    sentence = str(ConfigError("x" * 5000, key="name", fix="shorten it"))
    assert sentence.startswith("name: xxx")
    assert sentence.endswith("xxx; shorten it")
    assert len(sentence) < 1010


def test_fields_stay_readable() -> None:
    config = ConfigError("p", file=Path("a.toml"), key="k", fix="f")
    assert (config.problem, config.file, config.key, config.fix) == ("p", "a.toml", "k", "f")
    row = InputError("p", source="o.csv", row=7)
    assert (row.source, row.row, row.fix) == ("o.csv", 7, None)
    assert StateError("p", path=Path("d")).path == "d"
    assert TransportError("p", endpoint="e", retries=2).retries == 2


def test_errors_survive_a_process_boundary() -> None:
    error = ConfigError("p", file="a.toml", key="k", fix="f")
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)
