"""Progress on a terminal: a bar with rate and time to go, on stderr. Where stderr is no terminal there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

    from rfmstream.engine.files.source import Progress as ReadProgress

_STAGES: Final = {
    "scan": "is it sorted?",
    "read": "reading",
    "sorted": "replaying",
    "parted": "parting",
    "parts": "replaying",
    "merged": "merging",
}
_READS: Final = ("scan", "read", "parted")


@contextmanager
def progress_bar() -> Iterator["Callable[[ReadProgress], None] | None"]:
    """Give a function to call with the progress of reading, or None where nobody looks."""
    with _bar() as bar:
        if bar is None:
            yield None
            return
        tasks = {}

        def show(progress: "ReadProgress") -> None:
            # Called by the reading thread; rich locks.
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(_STAGES[progress.stage], total=None, rate="")
            task = tasks[progress.stage]
            rows = progress.rows if progress.stage in _READS else progress.done
            elapsed_s = bar.tasks[task].elapsed or 0.0
            rate = f"{rows / elapsed_s:,.0f} rows/s" if rows and elapsed_s > 0.2 else ""
            bar.update(task, completed=progress.done, total=progress.total, rate=rate)

        yield show


@contextmanager
def count_bar(label: str, total: int, *, is_timed: bool = True) -> Iterator[Callable[[int], None] | None]:
    """Give a function to call with the count reached so far, or None where nobody looks.

    In      is_timed  show rows a second; else "3 of 9"
    """
    with _bar() as bar:
        if bar is None:
            yield None
            return
        task = bar.add_task(label, total=total, rate="")

        def show(done: int) -> None:
            elapsed_s = bar.tasks[task].elapsed or 0.0
            rate = f"{done / elapsed_s:,.0f} rows/s" if elapsed_s > 0.2 else ""
            bar.update(task, completed=done, rate=rate if is_timed else f"{done} of {total}")

        show(0)
        yield show


@contextmanager
def _bar() -> Iterator["Progress | None"]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<13}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:>18}"),
        TextColumn("to go"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield bar
