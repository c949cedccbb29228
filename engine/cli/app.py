"""The command group, and what becomes of errors: one line on stderr and an exit code that says whose turn it is."""

import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn

import click

from rfmstream.engine.cli.homeless import keep_a_cache
from rfmstream.engine.files.interrupts import ending_signals, exit_code
from rfmstream.schemas.errors import ConfigError, InputError, RfmError, StateError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
EXIT_CODES: Final[dict[type[RfmError], int]] = {ConfigError: 2, InputError: 3, StateError: 4}

_DISK_FAILED: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

_EPILOG: Final = """
\b
Start here:
  rfmstream generate --customers 10000 --orders 100000 --seed 1 --out orders.parquet
  rfmstream replay orders.parquet --changes changes.parquet --snapshot tiers.csv
  rfmstream timeline changes.parquet

\b
Exit codes:
  0    done
  1    a disk, a broker, a worker or a destination failed; or a defect of rfmstream (with a traceback: please report it)
  2    usage or configuration: an option, ruleset or map is wrong; nothing was written
  3    input refused: it cannot be read, or --strict found rejected rows
  4    state: a checkpoint is damaged, belongs to another ruleset or cannot be written
  130  interrupted by Ctrl-C, 143 by SIGTERM, 129 by a terminal that was closed; no half-written file is left
"""


_COMMANDS: Final = (
    *(
        "replay",
        "timeline",
        "outcomes",
        "report",
        "snapshot",
        "explain",
        "erase",
        "rulesets",
        "maps",
        "generate",
    ),
    *("worker", "page", "produce", "redrive", "tail", "state", "deliver", "destinations", "warm-up"),
)
"""Each is the function, in the module, of its name."""


class Commands(click.Group):
    """A group that loads a command when it is asked for, and turns expected errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        """Return the names of all commands, those among them that are not loaded yet."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None: there is none of this name."""
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            name = cmd_name.replace("-", "_")
            self.add_command(getattr(import_module(f"rfmstream.engine.cli.{name}"), name))
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse an argument that is no text, which Arrow, orjson and HTTP would each stumble over elsewhere."""
        for given in args:
            if given != (shown := click.format_filename(given)):
                raise click.UsageError(f"{shown!r} is not UTF-8 text", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own
        """Run the command; an unexpected error keeps its traceback."""
        try:
            return super().invoke(ctx)
        except RfmError as error:
            click.echo(f"rfmstream: {error}", err=True)
            ctx.exit(
                next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), EXIT_FAILED)
            )
        except OSError as error:
            if error.errno not in _DISK_FAILED:
                raise
            # What is still to be printed cannot be, either, and Python would say so at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"rfmstream: writing broke off: {error.strerror}; make room", err=True)
            ctx.exit(EXIT_FAILED)
        except MemoryError as error:  # Arrow's own is one, too
            words = f" ({str(error).partition(chr(10))[0]})" if str(error) else ""
            click.echo(
                f"rfmstream: there is not enough memory{words}; nothing half-written is left: "
                "give it more, or run it on fewer orders or customers",
                err=True,
            )
            ctx.exit(EXIT_FAILED)
        except KeyboardInterrupt:
            click.echo("rfmstream: interrupted; no half-written file is left", err=True)
            ctx.exit(EXIT_INTERRUPTED)


@click.group(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="rfmstream")
def cli() -> None:
    """Turn order history into RFM customer tiers, and every change of them, exactly.

    R, F and M say how recently, how often and for how much a customer has bought. A ruleset turns them into tiers;
    rfmstream tells the instant at which each customer's tier changed, ageing out without an order included.
    """


class _Unused:
    """An import finder that says of packages nobody here uses that they are not installed.

    pyarrow loads pandas and numba loads SciPy wherever they are, which is a third of the time a short run takes.
    """

    @staticmethod
    def find_spec(name: str, _: Sequence[str] | None = None, __: ModuleType | None = None) -> None:
        if name in {"pandas", "scipy"}:
            raise ModuleNotFoundError(f"rfmstream does without {name}", name=name)


def main() -> None:
    """Run the command line of this process."""
    sys.meta_path.insert(0, _Unused)
    keep_a_cache()
    # numpy's linear algebra, which nobody here uses, starts a thread a core when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        # A terminal in Big5 or ASCII: what it cannot show must not end a run whose files are written.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Ended politely, a run cleans up as it does after Ctrl-C.
    for number in ending_signals():
        signal.signal(number, _terminate)
    code: Any = None
    try:
        cli(prog_name="rfmstream")
    except SystemExit as end:
        code = end.code
    for number in (signal.SIGINT, *ending_signals()):
        signal.signal(number, signal.SIG_IGN)  # it ends already
    if code:
        gc.collect()  # closes what the command held where it was broken off: files, folders of a sort
    _leave(code or 0)


def _leave(code: int) -> NoReturn:
    """End this process at once: everything is written.

    Taking the interpreter down under threads of native libraries can end in an abort, once in some hundred runs on a
    busy machine, and takes the longer the more memory there is.
    """
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)  # Python says what could not be printed


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(exit_code(number))
