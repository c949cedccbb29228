"""Workbooks and archives: what a sheet shows is what is read, and a file is what its content says."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from datetime import datetime, time, timedelta
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter
from click.testing import CliRunner

from rfmstream.engine.cli.app import cli
from rfmstream.engine.files import workbooks
from rfmstream.engine.files.cell_text import text_of
from rfmstream.engine.files.input_files import find_files
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import InputFormat

HEADER = ["customer_id", "order_id", "occurred_at", "amount"]
CSV = ",".join(HEADER) + "\n"
EVENT = '[[event]]\ncustomer_id = "who"\norder_id = "no"\noccurred_at = "when"\namount = "sum"\n'
NOON = datetime(2024, 1, 2, 12)  # noqa: DTZ001 - what a sheet holds
DATES = {"num_format": "dd.mm.yyyy hh:mm"}


def workbook(path: Path, sheets: dict[str, list[list]], *, hidden: str | None = None) -> Path:
    """Write sheets; datetimes get a format of dates."""
    with xlsxwriter.Workbook(str(path)) as book:
        dates = book.add_format(DATES)
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            if name == hidden:
                sheet.hide()
            elif hidden:
                sheet.activate()
                sheet.set_first_sheet()
            for at, row in enumerate(rows):
                for column, cell in enumerate(row):
                    if isinstance(cell, datetime | time):
                        sheet.write_datetime(at, column, cell, dates)
                    else:
                        sheet.write(at, column, cell)
    return path


def read(path: Path, toml: str | None = None) -> tuple[list[tuple], list[tuple]]:
    input_map = None
    if toml is not None:
        map_path = path.with_name("map.toml")
        map_path.write_text(f'name = "test"\n{toml}')
        input_map = load_map(map_path)
    good, bad = [], []
    for orders, rejected in open_orders([path], input_map=input_map, currency="EUR"):
        orders.validate(full=True)
        good += [
            (row["customer_id"], row["order_id"], str(row["occurred_at"])[:19], row["amount_minor"])
            for row in orders.to_pylist()
        ]
        bad += [(row["row"], row["reason"], row["source"]) for row in rejected.to_pylist()]
    return good, bad


def test_the_first_sheet_is_read_as_it_is_shown(tmp_path: Path) -> None:
    rows = [
        HEADER,
        ["00042", 100045, NOON, 12.5],
        [42, 123456789012345, NOON + timedelta(seconds=59), 0.1 + 0.2],
        ["a", "x", "2024-01-03", "7.00"],
    ]
    found = read(workbook(tmp_path / "in.xlsx", {"orders": rows, "others": [["x"]]}))
    assert found == (
        [
            ("00042", "100045", "2024-01-02 12:00:00", 1250),
            ("42", "123456789012345", "2024-01-02 12:00:59", 30),
            ("a", "x", "2024-01-03 00:00:00", 700),
        ],
        [],
    )


def test_every_second_and_cent_comes_out_as_openpyxl_shows_it(tmp_path: Path) -> None:
    rows = [[f"c{at}", at, NOON + timedelta(seconds=at * 86_413), at * 7919 / 100] for at in range(500)]
    path = workbook(tmp_path / "in.xlsx", {"s": [HEADER, *rows]})
    shown = list(openpyxl.load_workbook(path, data_only=True).active.iter_rows(min_row=2, values_only=True))
    expected = [(c, str(o), str(t.replace(microsecond=0)), round(a * 100)) for c, o, t, a in shown]
    assert read(path) == (expected, [])
    assert len(expected) == 500


def test_a_number_that_has_been_rounded_looks_it() -> None:
    cells = [1234567890123456789.0, 123456789012345.0, 1e-7, -0.5, 100.0, True, timedelta(hours=30)]
    assert [text_of(cell) for cell in cells] == [
        *("1.23456789012346E+18", "123456789012345", "0.0000001", "-0.5", "100", "TRUE", "30:00:00")
    ]


def test_a_sheet_by_name_or_the_first_that_is_not_hidden(tmp_path: Path) -> None:
    sheets = {"hidden": [["x"]], "first": [HEADER, ["a", 1, NOON, 1]], "2024": [HEADER, ["b", 2, NOON, 2]]}
    path = workbook(tmp_path / "in.xlsx", sheets, hidden="hidden")
    event = EVENT
    for name, column in zip(("who", "no", "when", "sum"), HEADER, strict=True):
        event = event.replace(f'"{name}"', f'"{column}"')
    assert read(path)[0] == [("a", "1", "2024-01-02 12:00:00", 100)]
    assert read(path, f'[input]\nsheet = "2024"\n{event}')[0] == [("b", "2", "2024-01-02 12:00:00", 200)]
    with pytest.raises(InputError, match="has no sheet '2025'; its sheets are hidden, first, 2024"):
        read(path, f'[input]\nsheet = "2025"\n{event}')


def test_sheets_that_are_not_read_are_told(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "in.xlsx", {"Jan": [HEADER, ["a", 1, NOON, 1]], "Feb": [HEADER], "Mar": []}, hidden="Mar"
    )
    stream = open_orders([path], currency="EUR")
    assert sum(orders.num_rows for orders, _ in stream) == 1
    assert stream.sheets_unread == (f"{path}: Feb",)
    told = CliRunner().invoke(cli, ["replay", str(path), "--json"])
    assert json.loads(told.stdout)["input"]["sheets_unread"] == [f"{path}: Feb"]
    assert f"1 sheets were not read, {path}: Feb" in CliRunner().invoke(cli, ["replay", str(path)]).stdout
    toml = '[input]\nsheet = "Feb"\n' + EVENT
    path = workbook(tmp_path / "in.xlsx", {"Jan": [HEADER], "Feb": [["who", "no", "when", "sum"]]})
    (tmp_path / "map.toml").write_text(f'name = "test"\n{toml}')
    asked = open_orders([path], input_map=load_map(tmp_path / "map.toml"), currency="EUR")
    assert list(asked) == []
    assert asked.sheets_unread == ()


@pytest.mark.parametrize("cover", [[], [["Our orders"], ["of 2024", "all"]]])
def test_a_cover_before_the_table_is_told(tmp_path: Path, cover: list[list]) -> None:
    path = workbook(tmp_path / "in.xlsx", {"Cover": cover, "Orders": [HEADER, ["a", 1, NOON, 1]]})
    with pytest.raises(
        InputError, match="sheet 'Cover' has none of the columns; its other sheets are Orders; name"
    ):
        read(path)


def test_cells_of_text_are_read_as_those_of_csv(tmp_path: Path) -> None:
    words = ["NULL", "#N/A", "N/A", "nan", "\\N", " \u00a0"]
    rows = [HEADER, *([word, at, NOON, 1] for at, word in enumerate(words)), [" a\u00a0", 9, NOON, " 1 "]]
    good, bad = read(workbook(tmp_path / "in.xlsx", {"orders": rows}))
    assert [(customer, order) for customer, order, *_ in good] == [("a", "9")]
    assert [reason for _, reason, _ in bad] == ["missing_customer_id"] * len(words)
    columns = EVENT
    for name, column in zip(("who", "no", "when", "sum"), HEADER, strict=True):
        columns = columns.replace(f'"{name}"', f'"{column}"')
    own = read(tmp_path / "in.xlsx", f'[input]\nabsent = ["0", "NULL"]\n{columns}')
    assert [(customer, order) for customer, order, *_ in own[0]] == [
        *(("#N/A", "1"), ("N/A", "2"), ("nan", "3"), ("\\N", "4"), ("a", "9")),
    ]


def test_title_rows_blank_rows_and_cells_before_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbooks, "_ROWS_AT_ONCE", 2)
    rows = [
        ["amount", "1,234"], [], [None, None, *HEADER], [None, None, "a", 1, NOON, 1], [],
        [None, None, "b", 2, NOON, 2], [None, None, "c", 3, NOON], [None, None, "d", 4, NOON, 0],
    ]  # fmt: skip
    path = workbook(tmp_path / "in.xlsx", {"s": rows})
    good, bad = read(path)
    assert [row[0] for row in good] == ["a", "b", "d"]
    assert bad == [(2, "bad_amount", str(path))]


def test_dates_need_no_format_of_the_map_and_a_date_and_a_time_are_joined(tmp_path: Path) -> None:
    day = datetime(2024, 1, 2)  # noqa: DTZ001
    path = workbook(
        tmp_path / "in.xlsx",
        {
            "s": [
                ["who", "no", "when", "sum", "at"],
                ["a", 1, day, 1, time(15, 30)],
                ["b", 2, "03.01.2024", 2, time(1)],
            ]
        },
    )
    event = EVENT.replace('"when"', '{ column = "when", format = "%d.%m.%Y" }')
    assert [row[2] for row in read(path, event)[0]] == ["2024-01-02 00:00:00", "2024-01-03 00:00:00"]
    event = EVENT.replace('"when"', '{ concat = ["when", "at"], format = "%d.%m.%Y %H:%M:%S" }')
    assert [row[2] for row in read(path, event)[0]] == ["2024-01-02 15:30:00", "2024-01-03 01:00:00"]


@pytest.mark.parametrize("name", ["in.csv", "in.zip", "in", "in.xlsm"])
@pytest.mark.parametrize("toml", [None, '[input]\nformat = "csv"\n'])
def test_a_workbook_under_another_name_is_one(tmp_path: Path, name: str, toml: str | None) -> None:
    workbook(tmp_path / "w.xlsx", {"s": [HEADER, ["a", 1, NOON, 1]]}).rename(tmp_path / name)
    event = f'[[event]]\n{"".join(f"""{column} = "{column}"{chr(10)}""" for column in HEADER)}'
    assert read(tmp_path / name, toml and toml + event)[0] == [("a", "1", "2024-01-02 12:00:00", 100)]


def test_a_table_of_text_under_a_workbooks_name(tmp_path: Path) -> None:
    (tmp_path / "in.xls").write_text(f"{CSV}a,1,2024-01-02T12:00,1\n".replace(",", "\t"))
    assert read(tmp_path / "in.xls")[0] == [("a", "1", "2024-01-02 12:00:00", 100)]


def test_a_parquet_file_under_another_name(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({name: ["1"] for name in HEADER} | {"occurred_at": ["2024-01-02"]}), tmp_path / "in.csv"
    )
    assert read(tmp_path / "in.csv")[0] == [("1", "1", "2024-01-02 00:00:00", 100)]


def test_every_file_of_an_archive_in_order_of_name(tmp_path: Path) -> None:
    parquet = io.BytesIO()
    pq.write_table(pa.table({name: ["5"] for name in HEADER} | {"occurred_at": ["2024-01-02"]}), parquet)
    book = workbook(tmp_path / "w.xlsx", {"s": [HEADER, ["4", 4, datetime(2024, 1, 2), 4]]}).read_bytes()  # noqa: DTZ001
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/2.csv", f"{CSV}2,2,2024-01-02,2\nx\n")
        archive.writestr("a.csv", f"{CSV}1,1,2024-01-02,1\n")
        archive.writestr("b/3.csv.gz", gzip.compress(f"{CSV}3,3,2024-01-02,3\n".encode()))
        archive.writestr("b/4.xlsx", book)
        archive.writestr("b/5.parquet", parquet.getvalue())
        archive.writestr(
            "b/6.jsonl", '{"customer_id":"6","order_id":"6","occurred_at":"2024-01-02","amount":6}\n'
        )
        archive.writestr("__MACOSX/._a.csv", b"\0\0")
        archive.writestr(".DS_Store", b"\0\0")
    good, bad = read(path)
    assert [(row[0], row[3]) for row in good] == [(str(at), at * 100) for at in range(1, 7)]
    assert bad == [(2, "malformed", f"{path}/b/2.csv")]
    assert [file.name for file in find_files([path], InputFormat())][1] == f"{path}/b/2.csv"


def made(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_what_no_one_can_read_is_told_for_what_it_is(tmp_path: Path) -> None:
    made(tmp_path / "empty.zip")
    made(tmp_path / "word.csv", ("word/document.xml", b"<x/>"))
    made(tmp_path / "inner.zip", ("outer.zip", made(tmp_path / "x.zip", ("a.csv", b"a,b\n")).read_bytes()))
    made(tmp_path / "pdf.zip", ("a.bin", b"%BIN-1.7\x00"))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:60])
    (tmp_path / "ole.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    for name, words in [
        ("empty.zip", "is a ZIP archive that holds no file to read"),
        ("word.csv", "is a Word document; save its table as CSV"),
        ("inner.zip", "inner.zip/outer.zip: is an archive in an archive"),
        ("pdf.zip", "pdf.zip/a.bin: its format cannot be told"),
        ("cut.zip", "is a ZIP archive that cannot be read"),
        ("ole.xls", "is a workbook that cannot be read"),
    ]:
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("a.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


TABLE = (CSV + "a,1,2024-01-02T12:00:00,1\n").encode()
ONE = ([("a", "1", "2024-01-02 12:00:00", 100)], [])


@pytest.mark.parametrize("name", ["in.csv", "in.tar.gz", "in", "in.xls"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tarred(TABLE), "is a tar archive; unpack it first"),
        (bz2.compress(TABLE), "is packed by bzip2; unpack it first"),
        (lzma.compress(TABLE), "is packed by xz; unpack it first"),
        (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(60), "is a 7z archive"),
        (b"Rar!\x1a\x07\x01\0" + bytes(60), "is a RAR archive"),
        (b"%PDF-1.7\n1,2\n", "is a PDF document; export its table"),
        (gzip.compress(TABLE), "is packed twice; unpack it once"),
    ],
    ids=["tar", "bzip2", "xz", "7z", "rar", "pdf", "gzip"],
)
def test_what_is_packed_in_other_ways_is_told(tmp_path: Path, content: bytes, words: str, name: str) -> None:
    (tmp_path / "in.gz").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=words):
        read(tmp_path / "in.gz")
    if words.startswith("is packed twice") or name.endswith(".gz"):
        return
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read(tmp_path / name)
    made(tmp_path / "outer.zip", (name, content))
    with pytest.raises(InputError, match=f"outer.zip/{name}: {words}"):
        read(tmp_path / "outer.zip")


def test_a_text_that_has_such_letters_is_a_text(tmp_path: Path) -> None:
    header = f"{','.join(HEADER)},{'x' * (257 - len(CSV))}ustar,1AY&SY\n"
    (tmp_path / "in.csv").write_text(header + "a,1,2024-01-02T12:00:00,1,,\n")
    assert header.encode().startswith(b"ustar", 257)
    assert read(tmp_path / "in.csv") == ONE


def test_what_is_in_a_packed_file_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "in.gz"
    path.write_bytes(gzip.compress(workbook(tmp_path / "w", {"s": [HEADER, ["a", 1, NOON, 1]]}).read_bytes()))
    assert read(path) == ONE
    path.write_bytes(gzip.compress(made(tmp_path / "x.zip", ("a.csv", TABLE)).read_bytes()))
    with pytest.raises(InputError, match="is a packed archive; unpack it once"):
        read(path)
    path = tmp_path / "in.xls.gz"
    path.write_bytes(gzip.compress(TABLE.replace(b",", b"\t")))
    assert read(path) == ONE


@pytest.mark.parametrize("name", ["in.csv", "in.txt", "in.xls", "in"])
@pytest.mark.parametrize("text", ["{}", "[{}]", " [\n {}\n]"])
def test_json_under_another_name(tmp_path: Path, name: str, text: str) -> None:
    row = dict(zip(HEADER, ("a", "1", "2024-01-02T12:00:00", 1), strict=True))
    (tmp_path / name).write_text(text.replace("{}", json.dumps(row)))
    assert read(tmp_path / name) == ONE
    with pytest.raises(InputError, match="is JSON, and the map reads csv; choose another map"):
        read(tmp_path / name, f'[input]\nformat = "csv"\n{EVENT}')


def test_a_workbook_is_no_json(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", {"s": [HEADER]})
    with pytest.raises(InputError, match="is a workbook, and the map reads jsonl"):
        read(path, f'[input]\nformat = "jsonl"\n{EVENT}')


def test_a_member_whose_bytes_are_damaged_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "in.zip", ("a.csv", f"{CSV}1,1,2024-01-02,1\n".encode()))
    path.write_bytes(path.read_bytes().replace(b"2024-01-02", b"2024-01-03"))
    with pytest.raises(InputError, match="cannot be read"):
        read(path)


def test_a_new_workbook_under_the_old_name(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", {"s": [HEADER, ["a", 1, NOON, 2]]}).rename(tmp_path / "in.xls")
    assert read(path) == ([("a", "1", "2024-01-02 12:00:00", 200)], [])


def test_what_stands_beside_the_tables_of_an_archive_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("2024/orders.csv", f"{CSV}a,1,2024-01-01,5\n")
        archive.writestr("2024/README.txt", "Thank you.\n")
        archive.writestr("invoice.pdf", b"%PDF-1.4\n\x00")
        archive.writestr("2024\\Thumbs.db", b"\x00\x01")
        archive.writestr("2024\\.hidden.csv", "x\n")
        archive.writestr("desktop.ini", "[.ShellClassInfo]\n")
    assert [row[0] for row in read(path)[0]] == ["a"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README", "Thank you.\n")
    with pytest.raises(InputError, match="holds no file to read"):
        read(path)
