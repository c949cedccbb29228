"""What is shown on a terminal while a command works."""

import pytest

from rfmstream.engine.cli.progress import count_bar


def _said(capsys: pytest.CaptureFixture[str], *, is_timed: bool) -> str:
    with count_bar("work", 10, is_timed=is_timed) as show:
        if show is not None:
            show(5)
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_a_count_is_shown_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    assert "5 of 10" in _said(capsys, is_timed=False)
    assert "5 of 10" not in _said(capsys, is_timed=True)


def test_nothing_is_said_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert _said(capsys, is_timed=True) == ""
