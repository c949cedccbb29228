"""Input maps that are wrong: each error names file, key and fix."""

from pathlib import Path

import pytest
from mapped_rows import EVENT, HEAD, IDS, run

from rfmstream.engine.files.mapping import load_map
from rfmstream.schemas.errors import ConfigError, InputError


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in\.parquet: no column 'zz', .*; the columns are c, o, t, a"):
        run(tmp_path, EVENT + 'amount = "zz"\n', {"c": ["x"], "o": ["1"], "t": ["2024"], "a": ["1"]})


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
