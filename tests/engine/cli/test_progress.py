"""What is said on a terminal while a command works."""

import pytest

from rfmstream.engine.cli import progress

FIRST_RUN = "compiling for this machine, once"


def _kernel() -> None:
    """Stand for a kernel; nothing of this name was ever compiled."""


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    with progress.count_bar("work", 10, compiles=_kernel) as show:
        if show is not None:
            show(5)
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_a_first_run_says_that_it_compiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert FIRST_RUN in _said(capsys)


def test_a_later_run_does_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def is_compiled(_: object) -> bool:
        return True

    monkeypatch.setattr(progress, "is_compiled", is_compiled)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert FIRST_RUN not in _said(capsys)


def test_nothing_is_said_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert _said(capsys) == ""
