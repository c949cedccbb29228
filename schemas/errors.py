"""The error tree: what a caller can do about it decides the class, not where it was raised.

RfmError
├── ConfigError      a file, option or argument is wrong: refuse to start (exit code 2)
├── InputError       orders that cannot be read or are refused as a whole (exit code 3)
├── StateError       a checkpoint or the state in memory cannot be trusted: stop and restore (exit code 4)
└── TransportError   a broker, socket or disk did not answer: retry a bounded number of times, then stop

A row that is merely unusable raises nothing: it leaves as a rejected row (see `schemas.orders`).

Errors carry fields, and each class builds one sentence from them: where, what is wrong, what to do. Write
`problem` and `fix` as clauses, in lower case and without a full stop. Credentials are masked in all of it.
"""

from os import PathLike, fspath

from rfmstream.schemas.secrets import masked

_START, _END = 700, 300
"""Characters kept of a sentence too long for anyone: it quotes what a file holds."""


class RfmError(Exception):
    """Everything rfmstream raises on purpose.

    Fields  problem  what is wrong, a clause
            fix      what the reader can do about it, a clause, or None
    """

    def __init__(self, problem: str, *, where: tuple[str | None, ...] = (), fix: str | None = None) -> None:
        self.problem = masked(problem)
        self.fix = fix
        place = "".join(f"{part}: " for part in where if part)
        advice = f"; {fix}" if fix else ""
        sentence = printable(masked(f"{place}{problem}{advice}"))
        is_long = len(sentence) > _START + _END
        super().__init__(f"{sentence[:_START]} ... {sentence[-_END:]}" if is_long else sentence)


class ConfigError(RfmError):
    """A ruleset, input map, option or argument is wrong; nothing has been read or written yet.

    Fields  file  the file at fault, as the user named it, or None
            key   the key inside it (`tiers.vip.zh`, `rules[2].r_band`) or the argument, or None
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        key: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.file = None if file is None else fspath(file)
        self.key = key
        super().__init__(problem, where=(self.file, key), fix=fix)


class InputError(RfmError):
    """Orders that cannot be read at all, or that a strict run refuses.

    Fields  source  the file or stream, or None
            row     0-based ordinal of the row over all inputs, or None
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str | PathLike[str] | None = None,
        row: int | None = None,
        fix: str | None = None,
    ) -> None:
        self.source = None if source is None else fspath(source)
        self.row = row
        super().__init__(problem, where=(self.source, None if row is None else f"row {row}"), fix=fix)


class StateError(RfmError):
    """A checkpoint, or the state in memory, is damaged or belongs to something else.

    Fields  path  the checkpoint directory or file, or None
    """

    def __init__(
        self, problem: str, *, path: str | PathLike[str] | None = None, fix: str | None = None
    ) -> None:
        self.path = None if path is None else masked(fspath(path))
        super().__init__(problem, where=(self.path,), fix=fix)


class TransportError(RfmError):
    """Something outside did not answer or broke off; the same call may succeed later.

    Fields  endpoint  what was talked to, or None
            retries   how many retries were made before giving up
    """

    def __init__(
        self, problem: str, *, endpoint: str | None = None, retries: int = 0, fix: str | None = None
    ) -> None:
        self.endpoint = None if endpoint is None else masked(endpoint)
        self.retries = retries
        tried = f" after {retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
        super().__init__(f"{problem}{tried}", where=(endpoint,), fix=fix)


def printable(text: str) -> str:
    """Return a text as a terminal may see it: what would control that, or turn its direction, is escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def printable_json(text: str) -> str:
    """Return JSON as a terminal may see it: the same JSON, in which such characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else _json_escaped(character)
        for character in text
    )


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
