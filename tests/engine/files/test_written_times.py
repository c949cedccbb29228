"""Times as exports write them, read through an input map: parts, zones, serial days, words of languages."""

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl.utils.datetime import from_excel

from rfmstream.engine.events.written_times import moment_reader
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.kernels.parse import NAIVE
from rfmstream.schemas.errors import ConfigError

BAD = "bad_time"


def times(tmp_path: Path, occurred_at: str, **columns: list) -> list[str]:
    """Return the instant of each row in UTC, without what is zero at its end, or the reason it is rejected for."""
    (tmp_path / "map.toml").write_text(
        'name = "test"\n[[event]]\ncustomer_id = "who"\norder_id = { row_number = true }\n'
        f"occurred_at = {occurred_at}\namount = {{ constant = 1 }}\n"
    )
    count = len(next(iter(columns.values())))
    pq.write_table(pa.table({"who": ["a"] * count, **columns}), tmp_path / "in.parquet")
    found = {}
    for orders, rejected in open_orders(
        [tmp_path / "in.parquet"], input_map=load_map(tmp_path / "map.toml"), currency="CNY", time_zone="UTC"
    ):
        found |= {
            row["row"]: row["occurred_at"].isoformat(" ").removesuffix("+00:00") for row in orders.to_pylist()
        }
        found |= {row["row"]: row["reason"] for row in rejected.to_pylist()}
    return [found[row] for row in sorted(found)]


def test_a_date_and_a_time_in_two_columns(tmp_path: Path) -> None:
    value = '{ concat = ["d", "h"], format = "%m/%d/%Y %H:%M:%S" }'
    found = times(tmp_path, value, d=["11/09/2026", "11/09/2026", None], h=["15:30:00", "", "15:30:00"])
    assert found == ["2026-11-09 15:30:00", BAD, BAD]


def test_a_zone_column_of_offsets_names_and_words_of_the_table(tmp_path: Path) -> None:
    value = (
        '{ concat = ["d", "h"], time_zone = { column = "z" },'
        ' zones = { PDT = "-07:00", PST = "-08:00", HK = "Asia/Hong_Kong" } }'
    )
    zones = [
        "PDT",
        "PST",
        "HK",
        "Europe/Paris",
        "+05:30",
        "+0530",
        "GMT+8",
        "UTC",
        "Z",
        "",
        None,
        "EST",
        "Mars/X",
    ]
    count = len(zones)
    found = times(tmp_path, value, d=["2026-07-09"] * count, h=["12:00"] * count, z=zones)
    hours = [
        "19:00",
        "20:00",
        "04:00",
        "10:00",
        "06:30",
        "06:30",
        "04:00",
        "12:00",
        "12:00",
        "12:00",
        "12:00",
    ]
    assert found == [*(f"2026-07-09 {hour}:00" for hour in hours), BAD, BAD]


def test_an_offset_in_the_time_counts_more_than_the_zone_column(tmp_path: Path) -> None:
    value = '{ column = "t", time_zone = { column = "z" } }'
    assert times(tmp_path, value, t=["2026-07-09T12:00:00+02:00"], z=["Asia/Tokyo"]) == [
        "2026-07-09 10:00:00"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-06-01 10:00:00 GMT+8", "2024-06-01 02:00:00"),
        ("2024-06-01 10:00:00 GMT-03:30", "2024-06-01 13:30:00"),
        ("2024-06-01 10:00:00 UTC+0800", "2024-06-01 02:00:00"),
        ("2024-06-01 10:00:00 GMT", "2024-06-01 10:00:00"),
        ("2024-06-01 10:00:00[America/New_York]", "2024-06-01 14:00:00"),
        ("2024-06-01 10:00:00 America/New_York", "2024-06-01 14:00:00"),
        ("2024-06-01T10:00:00-04:00[America/New_York]", "2024-06-01 14:00:00"),
        ("2024-06-01 10:00:00 EST", "2024-06-01 15:00:00"),
        ("2024-06-01 10:00:00 (MESZ)", "2024-06-01 08:00:00"),
        ("Jun 1, 2024 10:00:00 AM Pacific Time", "2024-06-01 17:00:00"),
        ("Sat Jun 01 2024 10:00:00 GMT+0800 (China Standard Time)", "2024-06-01 02:00:00"),
        ("2024-06-01 10:00:00 PST", BAD),
        ("2024-06-01 10:00:00 Mars/Base", BAD),
        ("GMT+8", BAD),
    ],
)
def test_a_zone_behind_the_time(tmp_path: Path, text: str, expected: str) -> None:
    value = (
        '{ column = "t", format = ["iso", "%b %d, %Y %I:%M:%S %p", "%a %b %d %Y %H:%M:%S"], time_zone = "Asia/Tokyo",'
        ' zones = { EST = "-05:00", MESZ = "+02:00", "Pacific Time" = "America/Los_Angeles" } }'
    )
    assert times(tmp_path, value, t=[text]) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("44260", "2021-03-05 00:00:00"),
        ("44260.5", "2021-03-05 12:00:00"),
        ("44260.640278", "2021-03-05 15:22:00"),
        ("44260.6402777778", "2021-03-05 15:22:00"),
        ("44260.64028935185", "2021-03-05 15:22:01"),
        ("44260.99999999999999", "2021-03-06 00:00:00"),
        ("44260.995", "2021-03-05 23:52:48"),
        ("44260.99999", "2021-03-05 23:59:59"),
        ("61", "1900-03-01 00:00:00"),
        ("60", BAD),
        ("59", "1900-02-28 00:00:00"),
        ("1", "1900-01-01 00:00:00"),
        ("0.5", BAD),
        ("2958466", BAD),
        ("1614928930", BAD),
        ("-1", BAD),
        ("4E4", BAD),
    ],
)
def test_a_serial_day_of_a_spreadsheet(tmp_path: Path, text: str, expected: str) -> None:
    assert times(tmp_path, '{ column = "t", format = "excel" }', t=[text]) == [expected]


def test_serial_days_are_those_of_openpyxl(tmp_path: Path) -> None:
    instants = [datetime(2020, 1, 1) + timedelta(seconds=86_399 * 37 * at + at) for at in range(50)]  # noqa: DTZ001
    serials = [(instant - datetime(1899, 12, 30)) / timedelta(days=1) for instant in instants]  # noqa: DTZ001
    assert all(abs(from_excel(a) - b) < timedelta(seconds=1) for a, b in zip(serials, instants, strict=True))
    expected = [str(instant) for instant in instants]
    assert times(tmp_path, '{ column = "t", format = "excel" }', t=serials) == expected
    assert times(tmp_path, '{ column = "t", format = "excel" }', t=list(map(repr, serials))) == expected
    early = [repr(serial - 1462) for serial in serials]
    assert times(tmp_path, '{ column = "t", format = "excel_1904" }', t=early) == expected


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2021/3/5 下午 03:22", "%Y/%m/%d %p %I:%M"),
        ("2021/3/5 下午03:22", "%Y/%m/%d %p%I:%M"),
        ("2021年3月5日 午後 3:22", "%Y年%m月%d日 %p %I:%M"),
        ("2021-03-05 오후 3:22", "%Y-%m-%d %p %I:%M"),
        ("3/5/2021 3:22 p.m.", "%m/%d/%Y %I:%M %p"),
        ("3/5/2021 3:22 p. m.", "%m/%d/%Y %I:%M %p"),
        ("3/5/2021 3:22\u202fPM", "%m/%d/%Y %I:%M %p"),
        ("3/5/2021 3:22pm", "%m/%d/%Y %I:%M%p"),
    ],
)
def test_the_words_for_before_and_after_noon(tmp_path: Path, text: str, form: str) -> None:
    assert times(tmp_path, f'{{ column = "t", format = "{form}" }}', t=[text]) == ["2021-03-05 15:22:00"]
    morning = (
        text.replace("下", "上")
        .replace("後", "前")
        .replace("오후", "오전")
        .replace("p", "a")
        .replace("P", "A")
    )
    assert times(tmp_path, f'{{ column = "t", format = "{form}" }}', t=[morning]) == ["2021-03-05 03:22:00"]


@pytest.mark.parametrize(
    ("language", "form", "texts"),
    [
        ("de", "%d-%b-%y", ["10-Dez-25", "10-Mär-25", "10-Mai-25", "10-DEZ-25", "10-Dezember-25"]),
        ("de", "%d. %B %Y", ["10. Dezember 2025", "10. März 2025", "10. Mai 2025"]),
        (
            "fr",
            "%d %b %Y",
            ["10 déc. 2025", "10 mars 2025", "10 mai 2025", "10 décembre 2025", "10 DÉC 2025"],
        ),
        ("fr", "%A %d %B %Y", ["mercredi 10 décembre 2025", "lundi 10 mars 2025", "samedi 10 mai 2025"]),
        ("es", "%a %d %b %Y", ["mié 10 dic 2025", "lun 10 mar 2025", "sáb 10 may 2025"]),
        ("zh", "%Y年%b%d日", ["2025年十二月10日", "2025年三月10日", "2025年五月10日"]),
        ("pl", "%d %B %Y", ["10 grudnia 2025", "10 marca 2025", "10 maja 2025"]),
        ("pt_BR", "%d de %B de %Y", ["10 de dezembro de 2025", "10 de março de 2025", "10 de maio de 2025"]),
    ],
)
def test_months_and_days_in_the_languages_of_cldr(
    tmp_path: Path, language: str, form: str, texts: list[str]
) -> None:
    value = f'{{ column = "t", format = "{form}", language = "{language}" }}'
    days = ["2025-12-10", "2025-03-10", "2025-05-10", "2025-12-10", "2025-12-10"]
    assert times(tmp_path, value, t=texts) == [f"{day} 00:00:00" for day in days[: len(texts)]]


def test_several_languages_beside_english(tmp_path: Path) -> None:
    value = '{ column = "t", format = ["%d-%b-%y", "%d %b %Y"], language = ["de", "fr"] }'
    texts = ["10-Dez-25", "10-Dec-25", "10-Mai-25", "10 mars 2025", "10 foo 2025"]
    days = ["2025-12-10 00:00:00"] * 2 + ["2025-05-10 00:00:00", "2025-03-10 00:00:00", BAD]
    assert times(tmp_path, value, t=texts) == days


@pytest.mark.parametrize(
    ("languages", "words"),
    [
        ('["hr", "pl"]', "'listopada?' is Oct and Nov in the languages hr, pl"),
        ('"xq"', "CLDR has no language 'xq'"),
    ],
)
def test_languages_that_contradict_or_are_none(tmp_path: Path, languages: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        times(tmp_path, f'{{ column = "t", format = "%d %b %Y", language = {languages} }}', t=["1 May 2025"])


@pytest.mark.parametrize("form", ["%Y%m%d%H%M%S", "%Y%m%d%H", "%Y%m%d", "%Y%m%d%H%M%S%f", "%Y%j"])
def test_seconds_since_1970_are_no_year(tmp_path: Path, form: str) -> None:
    texts = ["1614928930", "1611111111", "1614928930000", "1614928930123456"]
    assert times(tmp_path, f'{{ column = "t", format = "{form}" }}', t=texts) == [BAD] * 4


def test_digits_that_adjoin_are_whole(tmp_path: Path) -> None:
    texts = ["20210305152210", "2021030515221", "202135152210"]
    found = times(tmp_path, '{ column = "t", format = "%Y%m%d%H%M%S" }', t=texts)
    assert found == ["2021-03-05 15:22:10", BAD, BAD]
    texts = ["(20210305) 9:05", "(2021305) 9:05", "(20210305)  09:05"]
    found = times(tmp_path, '{ column = "t", format = "(%Y%m%d) %H:%M" }', t=texts)
    assert found == ["2021-03-05 09:05:00", BAD, "2021-03-05 09:05:00"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{ column = "t", format = "%d %m %Y %m" }', "has %m twice"),
        ('{ column = "t", format = "%Y-%m-%d %Z" }', "leave it out: zones ="),
        ('{ column = "t", zones = { EST = "Mars" } }', "'Mars' is not an IANA time zone"),
        ('{ column = "t", zones = { EST = "-25:00" } }', "is not an IANA time zone"),
        ('{ column = "t", language = "d e" }', "is no language"),
        ('{ column = "t", time_zone = 1 }', "must be a string"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        times(tmp_path, value, t=["2024-01-01"])


@pytest.mark.parametrize("languages", [(), ("de",), ("fr",), ("es",), ("it", "pt"), ("de", "fr", "es")])
def test_english_is_read_beside_other_languages(languages: tuple[str, ...]) -> None:
    read = moment_reader("%a %b %d %Y %H:%M:%S", languages)
    # The French for Tuesday, and the Spanish, is "mar".
    assert read("Fri Mar 05 2021 15:22:10") == (1_614_957_730_000_000, NAIVE)
    if "fr" in languages:
        assert read("ven. mars 05 2021 15:22:10") == read("Fri Mar 05 2021 15:22:10")
        assert moment_reader("%a %b %d %Y", languages)("mar. mars 02 2021") == (1_614_643_200_000_000, NAIVE)
