"""One setting of the worker: what it is called, where its value was written, and how that is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rfmstream.schemas.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "RFMSTREAM_"

Parse = Callable[[str], Any]


class BadValueError(ValueError):
    """A value its parser does not take; the two arguments are the problem and the fix."""


class Given(NamedTuple):
    """A value as somebody wrote it, and where: `file` and `key` as a ConfigError names them."""

    text: str
    key: str
    file: str | None = None

    def error(self, problem: str, fix: str | None = None) -> ConfigError:
        """Build (not raise) the error of this value."""
        return ConfigError(problem, file=self.file, key=self.key, fix=fix)


@dataclass(frozen=True)
class Setting:
    """One setting.

    Fields  name     in TOML; the flag is --name with dashes, the environment variable RFMSTREAM_NAME
            group    the heading it stands under
            parse    text to value; raises BadValueError
            default  as text; None: there is none
            metavar  of the value; "" where the flag stands alone (--x or --no-x)
            help     one sentence
            secret   from the environment, or a file named there, only
            many     the flag can be given more than once
    """

    name: str
    group: str
    parse: Parse
    default: str | None
    metavar: str
    help: str
    secret: bool = False
    many: bool = False

    @property
    def flag(self) -> str:
        """The command line's name of it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's name of it."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    def value(self, given: Given | None) -> Any:  # noqa: ANN401 - of the type its parser makes
        """Return the value that was given, or the default.

        Errors  ConfigError  names the setting, where it was written, and the fix
        """
        text = self.default if given is None else given.text
        if text is None:
            return None
        try:
            return self.parse(text)
        except BadValueError as error:
            assert given is not None, f"the default of {self.name} is bad"
            problem, fix = error.args
            raise given.error(problem, fix) from None
