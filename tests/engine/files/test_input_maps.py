"""Input maps: what each key does, and the errors of a wrong one."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import ConfigError, InputError

HEAD = 'name = "test"\n'
IDS = 'customer_id = "c"\norder_id = "o"\n'
EVENT = f'[[event]]\n{IDS}occurred_at = "t"\n'
COLUMNS = {"c": ["x"], "o": ["1"], "t": ["2024-01-02T03:04:05Z"], "a": ["1.50"]}


def run(tmp_path: Path, toml: str, columns: dict, **options: object) -> tuple[list[dict], list[dict]]:
    (tmp_path / "map.toml").write_text(HEAD + toml)
    count = len(next(iter(columns.values())))
    whole = {name: values * count for name, values in COLUMNS.items() if name not in columns} | columns
    pq.write_table(pa.table(whole), tmp_path / "in.parquet")
    stream = open_orders(
        [tmp_path / "in.parquet"], input_map=load_map(tmp_path / "map.toml"), currency="CNY", **options
    )
    good, bad = [], []
    for orders, rejected in stream:
        orders.validate(full=True)
        good += orders.to_pylist()
        bad += rejected.to_pylist()
    return good, bad


def amounts(tmp_path: Path, amount: str, columns: dict) -> list[int | str]:
    """Return minor units or reason of each row, in order of row, all taken as adjustments."""
    good, bad = run(tmp_path, f'{EVENT}type = "adjusted"\namount = {amount}\n', columns)
    found = {row["row"]: row["amount_minor"] for row in good} | {row["row"]: row["reason"] for row in bad}
    return [found[row] for row in sorted(found)]


def texts(tmp_path: Path, value: str, columns: dict) -> list[str | None]:
    """Return what an expression says of each row, seen as its event id."""
    good, bad = run(tmp_path, f'{EVENT}amount = "a"\nevent_id = {value}\n', columns)
    assert bad == []
    return [row["event_id"] for row in good]


def held(tmp_path: Path, condition: str, columns: dict) -> list[int]:
    """Return the rows for which a condition holds."""
    toml = f'[[exclude]]\nwhen = {{ not = {condition} }}\n{EVENT}amount = "a"\n'
    return [row["row"] for row in run(tmp_path, toml, columns)[0]]


def test_a_cell_that_is_no_utf8_is_malformed_and_the_others_are_read(tmp_path: Path) -> None:
    value = '{ column = "s", strip_prefix = "x", case = "upper", suffix = "!" }'
    raw = pa.array([b"xab", b"x\xe9", b"us\xe9", None, "\u00e9".encode()], pa.binary())
    columns = {"s": pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())}
    good, bad = run(tmp_path, f'{EVENT}amount = "a"\nevent_id = {value}\n', columns)
    assert [row["event_id"] for row in good] == ["AB!", None, "\u00c9!"]
    assert [(row["row"], row["reason"]) for row in bad] == [(1, "malformed"), (2, "malformed")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,249.00", "1249.00"),
        ("1,234,567", "1234567"),
        ("-1,249.00", "-1249.00"),
        ("12,49", "12,49"),
        ("1,23,456", "1,23,456"),
        ("1.249,000", "1.249,000"),
        ("0,100.5", "0100.5"),
        ("249.00", "249.00"),
    ],
)
def test_thousands_go_where_their_groups_are_whole(tmp_path: Path, text: str, expected: str) -> None:
    assert texts(tmp_path, '{ column = "s", thousands = "," }', {"s": [text]}) == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"s"', ["17850.0", "Ab", None, None]),
        ('{ column = "s", strip_suffix = ".0" }', ["17850", "Ab", None, None]),
        ('{ column = "s", strip_prefix = "A" }', ["17850.0", "b", None, None]),
        ('{ column = "s", remove = ["1", "0"] }', ["785.", "Ab", None, None]),
        ('{ column = "s", case = "upper", prefix = "<", suffix = ">" }', ["<17850.0>", "<AB>", None, None]),
        ('{ constant = "k" }', ["k"] * 4),
        ("{ constant = 5 }", ["5"] * 4),
        ('{ row_number = true, prefix = "line-" }', ["line-0", "line-1", "line-2", "line-3"]),
        ('{ first_of = ["s", "i"] }', ["17850.0", "Ab", "3", None]),
        ('{ first_of = ["nowhere", { column = "i", prefix = "n" }] }', ["n1", "n2", "n3", None]),
        ('{ column = "nowhere", optional = true }', [None] * 4),
        ('{ first_of = ["nowhere"], optional = true }', [None] * 4),
    ],
)
def test_values(tmp_path: Path, value: str, expected: list[str | None]) -> None:
    assert texts(tmp_path, value, {"s": ["17850.0", "Ab", "", None], "i": [1, 2, 3, None]}) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ('"p"', [10, 255, "bad_amount", "bad_amount", "bad_amount"]),
        ('{ product = ["q", "p"] }', [30, -255, "bad_amount", "bad_amount", "bad_amount"]),
        ('{ product = ["q", "p"], rounding = "half_even" }', [30, -255, 0, "bad_amount", "bad_amount"]),
        ('{ product = ["q", "p"], rounding = "half_up" }', [30, -255, 1, "bad_amount", "bad_amount"]),
        ('{ sum = ["p", "q"] }', [310, 155, "bad_amount", 700, "bad_amount"]),
        ('{ difference = ["q", "p"] }', [290, -355, "bad_amount", 700, "bad_amount"]),
        ('{ difference = ["p", "q"] }', [-290, 355, "bad_amount", "bad_amount", "bad_amount"]),
        (
            '{ product = ["q", { sum = ["p", { constant = "0.01" }] }] }',
            [33, -256, "bad_amount", 7, "bad_amount"],
        ),
        ('{ column = "q", negate = true }', [-300, 100, -100, -700, -800]),
        ('{ column = "q", absolute = true }', [300, 100, 100, 700, 800]),
        ('{ column = "q", absolute = true, negate = true }', [-300, -100, -100, -700, -800]),
        ('{ column = "p", round_to = 2 }', [10, 255, 0, "bad_amount", "bad_amount"]),
    ],
)
def test_amounts_are_exact(tmp_path: Path, amount: str, expected: list) -> None:
    columns = {"q": pa.array([3, -1, 1, 7, 8], pa.int32()), "p": ["0.10", "2.55", "0.005", None, "x"]}
    assert amounts(tmp_path, amount, columns) == expected


def test_doubles_by_their_shortest_decimal(tmp_path: Path) -> None:
    columns = {"q": [3, 1, 1, 1], "p": [0.1, 1.1, 0.1 + 0.2, float("nan")]}
    assert amounts(tmp_path, '{ product = ["q", "p"] }', columns) == [30, 110, "bad_amount", "bad_amount"]


def test_amount_minor(tmp_path: Path) -> None:
    good, bad = run(tmp_path, EVENT + 'amount_minor = "m"\n', {"m": ["150", "1.5", "2e2"]})
    assert [row["amount_minor"] for row in good] == [150, 200]
    assert [(row["row"], row["reason"], row["amount"]) for row in bad] == [(1, "bad_amount", "1.5")]


@pytest.mark.parametrize(
    ("time", "values", "expected"),
    [
        ('"t"', ["2024-01-02T03:04:05+01:00"], "2024-01-02 02:04:05"),
        ('{ column = "t", time_zone = "Europe/Paris" }', ["2024-07-02T03:04:05"], "2024-07-02 01:04:05"),
        ('{ column = "t", format = "%d/%m/%Y %H:%M" }', ["02/01/2024 03:04"], "2024-01-02 03:04:00"),
        (
            '{ column = "t", format = "%Y%m%d", time_zone = "Asia/Shanghai" }',
            ["20240102"],
            "2024-01-01 16:00:00",
        ),
        ('{ column = "t", format = "%Y%m%d" }', [20240102], "2024-01-02 00:00:00"),
        ('{ column = "t", format = "%d %b %Y" }', [" 2 jan 2024 "], "2024-01-02 00:00:00"),
        ('{ column = "t", format = "%Y-%m-%d %H.%M%z" }', ["2024-01-02 03.04+01:00"], "2024-01-02 02:04:00"),
        ('{ column = "t", format = "%Y%j %I%p %f" }', ["2024002 03PM 5"], "2024-01-02 15:00:00.500000"),
        ('{ column = "t", format = "%G-W%V-%u" }', ["2024-W01-2"], "2024-01-02 00:00:00"),
        ('{ column = "t", format = "unix_s" }', [1704164645], "2024-01-02 03:04:05"),
        ('{ column = "t", format = "unix_s" }', ["1704164645.9999999"], "2024-01-02 03:04:05.999999"),
        ('{ column = "t", format = "unix_ms" }', [1704164645000.0], "2024-01-02 03:04:05"),
        ('{ column = "t", format = "unix_us" }', ["1704164645000000"], "2024-01-02 03:04:05"),
    ],
)
def test_times(tmp_path: Path, time: str, values: list, expected: str) -> None:
    toml = f'[[event]]\n{IDS}occurred_at = {time}\namount = "a"\n'
    ((order,), _) = run(tmp_path, toml, {"t": values})
    assert str(order["occurred_at"]).removesuffix("+00:00") == expected


@pytest.mark.parametrize(
    ("time_format", "text"),
    [
        ("%d.%m.%Y", "31.04.2024"),
        ("%d.%m.%Y", "29.02.2023"),
        ("%Y%m%d", "19970230"),
        ("%Y-%m-%d %H:%M:%S", "2024-01-05 23:59:60"),
        ("%m/%d/%Y", "1/5/97"),
        ("%Y-%m-%d %z", "0001-01-01 +0100"),
    ],
)
def test_a_time_that_does_not_exist_is_bad(tmp_path: Path, time_format: str, text: str) -> None:
    toml = f'[[event]]\n{IDS}occurred_at = {{ column = "t", format = "{time_format}" }}\namount = "a"\n'
    good, bad = run(tmp_path, toml, {"t": [text, text]})
    assert (good, [row["reason"] for row in bad]) == ([], ["bad_time", "bad_time"])


def test_unreadable_times_show_their_text(tmp_path: Path) -> None:
    toml = f'[[event]]\n{IDS}occurred_at = {{ column = "t", format = "%d.%m.%Y" }}\namount = "a"\n'
    good, bad = run(tmp_path, toml, {"t": ["31.12.2024", "2024-12-31", "", None]})
    assert len(good) == 1
    assert [(row["reason"], row["occurred_at"]) for row in bad] == [
        ("bad_time", "2024-12-31"),
        ("bad_time", ""),
        ("bad_time", None),
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('{ column = "s", equals = "paid" }', [0]),
        ('{ column = "s", case = "lower", equals = "paid" }', [0, 1]),
        ('{ column = "s", one_of = ["paid", "C12"] }', [0, 2]),
        ('{ column = "s", starts_with = "C" }', [2]),
        ('{ column = "s", starts_with = ["C", "PA"] }', [1, 2]),
        ('{ column = "s", contains = "a" }', [0]),
        ('{ column = "s", contains = ["12", "AI", "."] }', [1, 2]),
        ('{ column = "s", is_null = true }', [3, 4]),
        ('{ column = "s", is_null = false }', [0, 1, 2]),
        ('{ column = "n", greater_than = 0 }', [0, 2]),
        ('{ column = "n", less_than = "0.01" }', [1, 3]),
        ('{ column = "n", greater_than = "-0.005" }', [0, 1, 2]),
        ('{ column = "n", greater_than = "-999999999999999999" }', [0, 1, 2, 3]),
        ('{ sum = ["n", "n"], greater_than = 2 }', [2]),
        ('{ not = { column = "s", equals = "paid" } }', [1, 2, 3, 4]),
        ('{ any = [{ column = "s", equals = "paid" }, { column = "n", less_than = 0 }] }', [0, 3]),
        ('{ all = [{ column = "s", is_null = true }, { column = "n", less_than = 0 }] }', [3]),
        ('{ column = "nowhere", optional = true, equals = "x" }', []),
    ],
)
def test_conditions(tmp_path: Path, condition: str, expected: list[int]) -> None:
    columns = {"s": ["paid", "PAID", "C12", "", None], "n": ["0.01", "0", "1e2", "-1", "x"]}
    assert held(tmp_path, condition, columns) == expected


def test_one_row_gives_several_events_in_the_order_of_their_sections(tmp_path: Path) -> None:
    toml = f"""
        {EVENT}amount = "a"
        [[event]]
        type = "refunded"
        when = {{ column = "r", greater_than = 0 }}
        {IDS}occurred_at = "t"
        amount = "r"
        [[event]]
        type = "cancelled"
        when = {{ column = "x", is_null = false }}
        {IDS}occurred_at = {{ first_of = ["x", "t"] }}
    """
    columns = {"o": ["1", "2"], "r": ["0.50", None], "x": ["2024-01-02T03:04:05Z", "2023-01-01"]}
    good, bad = run(tmp_path, toml, columns)
    assert bad == []
    assert [(row["row"], row["type"], row["amount_minor"]) for row in good] == [
        (1, 2, 0),
        (0, 0, 150),
        (1, 0, 150),
        (0, 1, 50),
        (0, 2, 0),
    ]


def test_rows_are_picked_out_of_columns_of_any_kind(tmp_path: Path) -> None:
    view = pa.string_view()
    columns = {
        "o": pa.array(["1", "2", "3"], view),
        "s": pa.array(["no", "paid", "no"], view),
        "list": pa.array([["x"], ["y"], None], pa.list_(view)),
    }
    toml = f'exclude = [{{ when = {{ column = "s", equals = "no" }} }}]\n{EVENT}amount = "a"\n'
    good, bad = run(tmp_path, toml, columns)
    assert ([row["order_id"] for row in good], bad) == (["2"], [])
    with pytest.raises(InputError, match="column list"):
        run(tmp_path, toml + 'currency = "list"\n', columns)


def test_a_row_without_an_event_is_rejected_not_dropped(tmp_path: Path) -> None:
    toml = f'{EVENT}amount = "a"\nwhen = {{ column = "s", equals = "paid" }}\n'
    good, bad = run(tmp_path, toml, {"s": ["paid", "pending"], "o": ["1", "2"]})
    assert [row["row"] for row in good] == [0]
    assert [(row["row"], row["reason"], row["order_id"]) for row in bad] == [(1, "unknown_type", "2")]


def test_type_from_a_column(tmp_path: Path) -> None:
    toml = f'{EVENT}amount = "a"\ntype = {{ column = "s", case = "lower" }}\n'
    good, bad = run(tmp_path, toml, {"s": ["Paid", "REFUNDED", None, "gift"]})
    assert [(row["row"], row["type"]) for row in good] == [(0, 0), (2, 0), (1, 1)]
    assert [(row["reason"], row["type"]) for row in bad] == [("unknown_type", "gift")]


def test_a_map_can_say_which_cells_mean_absent(tmp_path: Path) -> None:
    toml = """
        [input]
        absent = [0, "NULL", "-"]
        [[event]]
        type = "adjusted"
        customer_id = { first_of = [{ column = "c", prefix = "c" }, "mail"] }
        order_id = "o"
        occurred_at = "t"
        amount = { sum = ["a", "b"] }
        event_id = "e"
    """
    columns = {
        "c": ["0", "NULL", "17", "00", "-"],
        "mail": ["ann", "bob", "cy", "dan", "eve"],
        "a": ["0", "5", "0.00", "-", "-"],
        "b": ["-", "NULL", "1", "2", "-"],
        "e": pa.array([0, 1, 2, None, 0]),
    }
    good, bad = run(tmp_path, toml, columns)
    assert [(row["customer_id"], row["amount_minor"], row["event_id"]) for row in good] == [
        ("ann", 0, None),
        ("bob", 500, "1"),
        ("c17", 100, "2"),
        ("c00", 200, None),
    ]
    assert [(row["row"], row["reason"]) for row in bad] == [(4, "bad_amount")]


LINES = f'[lines]\n{EVENT}amount = {{ product = ["q", "p"], rounding = "half_even" }}\n'


def test_lines_are_summed_exactly_and_rounded_once(tmp_path: Path) -> None:
    columns = {
        "c": ["x", "y", "x", "x", None, "y", "z", "z"],
        "o": ["1", "1", "1", "2", "3", "", "9", "9"],
        "t": [
            "2024-01-02",
            "2024-01-01",
            "2020-01-01",
            "2024-01-03",
            "2024",
            "2024",
            "2024-01-05",
            "2024-01-05",
        ],
        "q": [1, 1, 1, 2, 1, 1, 1, 1],
        "p": ["0.004", "5", "0.002", "-1", "1", "1", "7", "x"],
    }
    good, bad = run(tmp_path, LINES, columns)
    assert [(row["row"], row["customer_id"], row["order_id"], row["amount_minor"]) for row in good] == [
        (1, "y", "1", 500),
        (0, "x", "1", 1),
    ]
    assert str(good[1]["occurred_at"]) == "2024-01-02 00:00:00+00:00"
    assert sorted((row["row"], row["reason"], row["amount"]) for row in bad if row["row"] not in (4, 5)) == [
        (3, "negative_amount", "-2"),
        (7, "bad_amount", None),
    ]
    line = next(row for row in bad if row["row"] == 7)
    assert (line["customer_id"], line["order_id"], line["type"], line["occurred_at"]) == (
        *("z", "9", "paid"),
        "2024-01-05",
    )
    assert json.loads(line["raw"]) == {"c": "z", "o": "9", "t": "2024-01-05", "q": "1", "p": "x"}
    summed = next(row for row in bad if row["row"] == 3)
    assert (summed["type"], summed["occurred_at"]) == ("paid", "2024-01-03T00:00:00.000000Z")
    assert sorted((row["row"], row["reason"]) for row in bad if row["row"] in (4, 5)) == [
        (4, "missing_customer_id"),
        (5, "missing_order_id"),
    ]


def test_lines_need_memory(tmp_path: Path) -> None:
    columns = {"q": [1] * 1000, "p": ["1"] * 1000}
    with pytest.raises(InputError, match="budget"):
        run(tmp_path, LINES, columns, memory_budget_bytes=10_000)


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in\.parquet: no column 'zz', .*; the columns are c, o, t, a"):
        run(tmp_path, EVENT + 'amount = "zz"\n', {"c": ["x"], "o": ["1"], "t": ["2024"], "a": ["1"]})


def test_struct_columns_by_dotted_path(tmp_path: Path) -> None:
    nested = pa.array([{"total": "1.25", "deep": {"id": "o9"}}, None])
    toml = '[[event]]\ncustomer_id = "c"\norder_id = "s.deep.id"\noccurred_at = "t"\namount = "s.total"\n'
    good, bad = run(tmp_path, toml, {"s": nested})
    assert [(row["order_id"], row["amount_minor"]) for row in good] == [("o9", 125)]
    assert [row["reason"] for row in bad] == ["missing_order_id"]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("", r"event: there is no \[\[event\]\]"),
        ("[[event]", "is not valid TOML"),
        ("x = " + "[" * 3000 + "]" * 3000, "is nested too deeply"),
        ("x = " + "[" * 101 + "]" * 101, "is nested too deeply"),
        (f"[{'.'.join(['a'] * 300)}]", "is nested too deeply"),
        ("x = " + "9" * 5000, "too long a number"),
        ("x = 0x" + "f" * 17, "holds an integer beyond 64 bits"),
        (EVENT, r"event\[1\]\.amount: is missing"),
        (EVENT + 'amount = "a"\namount_minor = "a"', r"event\[1\]\.amount: amount and amount_minor"),
        (EVENT + 'amout = "a"', r"event\[1\]\.amout: unknown key; did you mean amount\?"),
        (
            EVENT + 'amount = { colum = "a" }',
            r"event\[1\]\.amount: says no value; give exactly one of column",
        ),
        (EVENT + 'amount = { column = "a", constant = "b" }', r"amount: has column and constant"),
        (EVENT + 'amount = { sum = ["a"], case = "lower" }', r"amount\.case: is for text"),
        (EVENT + "amount = { sum = [] }", r"amount\.sum: is empty"),
        (
            EVENT + 'amount = { column = "a", rounding = "up" }',
            r"amount\.rounding: 'up' is not one of refuse",
        ),
        (EVENT + 'amount = { column = "a", round_to = 99 }', r"amount\.round_to: 99 is out of range"),
        (EVENT + 'amount = "a"\ntype = "gift"', r"event\[1\]\.type: 'gift' is not one of paid"),
        (EVENT + 'amount = "a"\nwhen = { column = "a" }', r"when\[1\]: says no test"),
        (EVENT + 'amount = "a"\nwhen = []', r"event\[1\]\.when: says no condition"),
        *(
            (EVENT + f'amount = "a"\nwhen = {{ {join} = [] }}', rf"when\[1\]\.{join}: is empty")
            for join in ("all", "any", "not")
        ),
        *(
            (EVENT + f'amount = {{ column = "a", {step} }}', rf"amount\.{words}")
            for step, words in (
                ('remove = ""', "remove: is empty text"),
                ('remove = ["x", ""]', "remove: is empty text"),
                (f'strip_prefix = "{"x" * 257}"', "strip_prefix: has more than 256"),
                (f'strip_suffix = "{"x" * 257}"', "strip_suffix: has more than 256"),
                (f'thousands = "{"x" * 257}"', "thousands: has more than 256"),
            )
        ),
        (
            EVENT + 'amount = "a"\nwhen = { column = "a", less_than = 0.1 }',
            r"less_than: must be an integer, or a decimal in",
        ),
        *(
            (
                EVENT + f'amount = "a"\nwhen = {{ column = "a", greater_than = {bound} }}',
                r"greater_than: '.+' is no decimal of at most 18 digits; write digits",
            )
            for bound in (
                '"abc"',
                '"nan"',
                '"1,5"',
                '"1e3"',
                "1234567890123456789",
                '"0.1234567890123456789"',
            )
        ),
        (EVENT + 'amount = "a"\nwhen = { column = "a", one_of = "b" }', r"one_of: must be a list"),
        (
            '[[event]]\ncustomer_id = "c"\norder_id = "o"\namount = "a"',
            r"event\[1\]\.occurred_at: is missing",
        ),
        (
            f'[[event]]\n{IDS}amount = "a"\noccurred_at = {{ column = "t", time_zone = "Mars" }}',
            r"occurred_at\.time_zone: 'Mars' is not an IANA",
        ),
        *(
            (
                f'[[event]]\n{IDS}amount = "a"\noccurred_at = {{ column = "t", format = "{time_format}" }}',
                rf"occurred_at\.format: {words}",
            )
            for time_format, words in (
                ("", "'' names no day"),
                ("%H:%M", "'%H:%M' names no day"),
                ("%Y-%m", "'%Y-%m' names no day"),
                ("%G-%V", "'%G-%V' names no day"),
                ("%%Y-%m-%d", "'%%Y-%m-%d' names no day"),
                ("%Y-%m-%d %Z", "%Z is no directive"),
                ("%Y-%m-%d %", "% is no directive"),
            )
        ),
        *(
            (
                f'[[event]]\n{IDS}amount = "a"\noccurred_at = {{ column = "t", time_zone = "{zone}" }}',
                rf"occurred_at\.time_zone: '{zone}' is not an IANA",
            )
            for zone in ("localtime", "posixrules", "Factory", "right/UTC", "")
        ),
        (EVENT + 'amount = ""', r"event\[1\]\.amount\.column: is empty"),
        (EVENT + 'amount = { sum = ["a", 5] }', r"amount\.sum\[2\]: must be a table"),
        (EVENT + 'amount = "a"\n[[exclude]]\nwhy = 1\nwhen = 2', r"exclude\[1\]"),
        ('[input]\ndelimiter = "::"\n' + EVENT + 'amount = "a"', r"input\.delimiter: '::' is no delimiter"),
        (
            '[input]\nencoding = "martian"\n' + EVENT + 'amount = "a"',
            r"input\.encoding: 'martian' is no encoding",
        ),
        ('[input]\nformat = "docx"\n' + EVENT + 'amount = "a"', r"input\.format: 'docx' is not one of"),
        (
            "title = 5\n" + EVENT + 'amount = "a"',
            r"title: must be a string, not an integer; put it in quotes",
        ),
    ],
)
def test_errors_name_file_key_and_fix(tmp_path: Path, toml: str, words: str) -> None:
    path = tmp_path / "map.toml"
    path.write_text(HEAD + toml)
    with pytest.raises(ConfigError, match=words) as caught:
        load_map(path)
    assert caught.value.file == str(path)


def test_a_map_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    for name, words in (
        ("", "name: is missing"),
        ('name = ""', "name: is empty"),
        ("name = 5", "must be a string"),
    ):
        path.write_text(f'{name}\n{EVENT}amount = "a"\n')
        with pytest.raises(ConfigError, match=words):
            load_map(path)


def test_an_unknown_map_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"no such input map.*cdnow, complete-journey-lines"):
        load_map("cd-now")


def test_an_amount_once_an_order_is_added_to_its_lines_once(tmp_path: Path) -> None:
    columns = {
        "c": ["x"] * 9,
        "o": ["1", "1", "2", "2", "3", "3", "4", "5", "5"],
        "a": ["1.50"] * 9,
        "ship": ["4.90", "4.9", None, "2", "1", "2", "x", "", None],
    }
    good, bad = run(tmp_path, f'[lines]\n{EVENT}amount = "a"\namount_once = "ship"\n', columns)
    assert [(row["order_id"], row["amount_minor"]) for row in good] == [("1", 790), ("2", 500), ("5", 300)]
    assert [(row["order_id"], row["reason"]) for row in bad] == [("3", "bad_amount"), ("4", "bad_amount")]


def test_an_amount_once_an_order_needs_lines(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"event\[1\]\.amount_once: is for order lines; add a section \[lines\]"
    ):
        run(tmp_path, f'{EVENT}amount = "a"\namount_once = "a"\n', {"a": ["1"]})


@pytest.mark.parametrize("lines", [False, True])
def test_an_erasure_needs_neither_order_nor_amount(tmp_path: Path, *, lines: bool) -> None:
    toml = f"""
        {"[lines]" if lines else ""}
        {"sum = true" if lines else ""}
        [[event]]
        when = {{ column = "k", equals = "sale" }}
        {IDS}occurred_at = "t"
        amount = "a"
        [[event]]
        type = "erased"
        when = {{ column = "k", equals = "gone" }}
        customer_id = "c"
        occurred_at = "t"
    """
    columns = {
        "k": ["sale", "gone"],
        "o": ["1", None],
        "a": ["1.50", None],
        "t": ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"],
    }
    good, bad = run(tmp_path, toml, columns)
    assert bad == []
    assert [(row["row"], row["type"], row["order_id"], row["amount_minor"]) for row in good] == [
        (0, 0, "1", 150),
        (1, 5, "", 0),
    ]


def test_a_decimal_sign_is_never_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(
        'name = "test"\n[[event]]\ncustomer_id = "c"\norder_id = "o"\noccurred_at = "t"\n'
        'amount_minor = { column = "a", remove = [".", ","] }\n'
    )
    with pytest.raises(ConfigError, match=r"event\[1\].amount_minor.remove: takes the decimal sign away"):
        load_map(path)
