"""The model of an input map: how rows of any order export become order events, as frozen dataclasses.

`schemas.mapping_file` reads and validates the file; what an expression or condition evaluates to is the business of
`engine.files.mapping`.

Source  docs/semantics.md section 1
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["column", "constant", "row_number", "first_of", "concat", "sum", "difference", "product"]
Test = Literal["equals", "one_of", "starts_with", "contains", "is_null", "less_than", "greater_than"]
Rounding = Literal["refuse", "half_even", "half_up"]
Format = Literal["parquet", "arrow", "csv", "jsonl", "xlsx", "html", "xml"]

ARITHMETIC: Final = ("sum", "difference", "product")
EACH: Final = "[*]"
"""Behind a step of a path: each element of the list there."""
TIME_FORMATS: Final = ("iso", "unix_s", "unix_ms", "unix_us", "excel", "excel_1904")
"""Those that are no format of Python's strptime; `excel` is a spreadsheet's serial day."""


@dataclass(frozen=True)
class Expression:
    """A value of each row.

    Fields  kind          which of the others counts
            text          the column's name (a dotted path reaches into nested objects) or the constant
            terms         of first_of, concat, sum, difference, product
            strip_prefix, strip_suffix, remove, thousands, case, prefix, suffix   applied to text, in this order
            round_to      decimals that a number is rounded to, half to even; None: all are kept
            absolute, negate   applied to numbers after that, in this order
            optional      an input without the column gives nulls instead of an error
        separator     stands between the terms of a concat
        decimal       the decimal sign of numbers that are read from text, "." or ","
    """

    kind: Kind
    text: str = ""
    terms: tuple["Expression", ...] = ()
    strip_prefix: str = ""
    strip_suffix: str = ""
    remove: tuple[str, ...] = ()
    thousands: str = ""
    case: Literal["lower", "upper"] | None = None
    prefix: str = ""
    suffix: str = ""
    round_to: int | None = None
    absolute: bool = False
    negate: bool = False
    optional: bool = False
    separator: str = " "
    decimal: str = "."

    @property
    def is_numeric(self) -> bool:
        """Whether its value is computed, rather than taken as it stands."""
        return self.kind in ARITHMETIC or self.round_to is not None or self.absolute or self.negate

    def columns(self) -> Iterator[str]:
        """Yield the columns it reads."""
        if self.kind == "column":
            yield self.text
        for term in self.terms:
            yield from term.columns()


@dataclass(frozen=True)
class Condition:
    """What a row must be like: a test of one value, or all, any or none of several conditions."""

    join: Literal["test", "all", "any", "not"]
    parts: tuple["Condition", ...] = ()
    value: Expression | None = None
    test: Test = "equals"
    operands: tuple[str, ...] = ()

    def columns(self) -> Iterator[str]:
        """Yield the columns it reads."""
        if self.value is not None:
            yield from self.value.columns()
        for part in self.parts:
            yield from part.columns()


@dataclass(frozen=True)
class Event:
    """One order event that a row may give.

    Fields  when         None: every row
            type         an order type, or an expression whose text is one
            amount       None only for cancelled; in minor units where `in_minor`
            time_formats  tried in this order: one of TIME_FORMATS or a format of Python's strptime
            time_zone    of times without one; None: that of the run
            zone_of_row  says the zone of each row's time; where it is absent `time_zone` counts
            zones        what zone words such as EST mean here: an offset or an IANA zone for each
            languages    CLDR languages of month and day names and of the words for a.m. and p.m.
            amount_once  added to the sum of an order's lines once, not once a line
    """

    when: Condition | None
    type: str | Expression
    customer_id: Expression
    order_id: Expression
    occurred_at: Expression
    time_formats: tuple[str, ...]
    time_zone: str | None
    amount: Expression | None
    in_minor: bool
    rounding: Rounding
    currency: Expression | None
    event_id: Expression | None
    zone_of_row: Expression | None = None
    zones: tuple[tuple[str, str], ...] = ()
    languages: tuple[str, ...] = ()
    amount_once: Expression | None = None

    def time_columns(self) -> tuple[str, ...]:
        """Return the columns that its time is read from."""
        zone = () if self.zone_of_row is None else self.zone_of_row.columns()
        return (*self.occurred_at.columns(), *zone)

    @property
    def each(self) -> str:
        """The list of whose elements each gives an event of its own, such as `refunds[*]`; empty: the row is one."""
        lists = {name[: name.rindex(EACH) + len(EACH)] for name in self.columns() if EACH in name}
        return max(lists, key=lambda path: (path.count(EACH), path), default="")

    def columns(self) -> Iterator[str]:
        """Yield the columns it reads."""
        if self.when is not None:
            yield from self.when.columns()
        parts = (
            self.type,
            self.customer_id,
            self.order_id,
            self.occurred_at,
            self.amount,
            self.currency,
            self.event_id,
            self.zone_of_row,
            self.amount_once,
        )
        for part in parts:
            if isinstance(part, Expression):
                yield from part.columns()


@dataclass(frozen=True)
class Exclusion:
    """Rows that are no order events.

    Fields  why   what the summary calls them
            when  what they are like
    """

    why: str
    when: Condition


@dataclass(frozen=True)
class InputFormat:
    """How the bytes are to be read where the file's name does not say it.

    Fields  delimiter  one character, or "whitespace" for runs of blanks
            encoding   of delimited text
            columns    names of the columns of a file without a header line
            headerless  such names for files whose first line names none of the columns; its cells tell which of them
            skip       lines above the header; None: found out, where one line names the columns clearly
            decimal    the decimal sign of numbers where their expression does not say it
            fill_down  columns whose blank cells take the value above
            sheet      of a workbook; None: the first
            absent     whole cells that mean absent, in any format; None: those that the contract lists, in text files
            records    path to the list of records in a JSON document; None: found out, where there is one list
    """

    format: Format | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    columns: tuple[str, ...] = ()
    headerless: tuple[tuple[str, ...], ...] = ()
    skip: int | None = None
    decimal: str = "."
    fill_down: tuple[str, ...] = ()
    sheet: str | None = None
    records: str | None = None
    absent: tuple[str, ...] | None = None


@dataclass(frozen=True)
class InputMap:
    """A validated input map.

    Fields  name, title, source   what it is called, what it is for, where its reading of the data comes from
            exclude    rows for which any of them holds are no order events
            events     every one whose `when` holds gives an event; a row with none is an unknown_type
            sum_lines  rows are order lines: those of one customer, order and type are summed into one event
            line_id    what tells the lines of an order apart: lines of several files that agree in it, in time and
                       in amount are one line; empty: an order whose lines are in several files is refused
            path       the file it was read from
            attributes  what a plan's columns are in this input, by name; others are columns of that name
            lines_by   attributes whose values part an order's lines, where a plan looks at them
    """

    name: str
    title: str
    source: str
    input: InputFormat
    exclude: tuple[Exclusion, ...]
    events: tuple[Event, ...]
    sum_lines: bool
    line_id: tuple[Expression, ...]
    path: str
    attributes: tuple[tuple[str, Expression], ...] = ()
    lines_by: tuple[str, ...] = ()

    def attribute(self, name: str) -> Expression:
        """Return what an attribute is: as the map says, else the column of that name."""
        return dict(self.attributes).get(name, Expression("column", name))

    def columns(self) -> tuple[str, ...]:
        """Return the columns it reads, each once, in order of their first use."""
        found = dict.fromkeys(column for rule in self.exclude for column in rule.when.columns())
        found.update(dict.fromkeys(column for event in self.events for column in event.columns()))
        found.update(dict.fromkeys(column for part in self.line_id for column in part.columns()))
        return tuple(found)
