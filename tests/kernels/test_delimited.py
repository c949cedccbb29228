"""The splitter of delimited text, against Python's csv module and in its own corners."""

import csv
import io
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rfmstream.engine.files.delimited import read_delimited
from rfmstream.engine.files.input_files import find_files
from rfmstream.schemas.mapping import InputFormat

CELL = st.text(alphabet='ab,"\n\r; é', max_size=6)


def read(
    path: Path, data: bytes, *, columns: tuple[str, ...] = ("a", "b"), **form: str
) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    path.write_bytes(data)
    rows, damaged = [], []
    (file,) = find_files([path], InputFormat(format="csv", **form))
    for chunk in read_delimited(file, columns, first_row=0, tick=lambda _: None):
        cells = zip(*(chunk.batch.column(name).to_pylist() for name in chunk.batch.schema.names), strict=True)
        rows += [(int(row), list(cell)) for row, cell in zip(chunk.rows, cells, strict=True)]
        damaged += list(zip(chunk.damaged_rows.tolist(), chunk.damaged_raw, strict=True))
    return rows, damaged


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(CELL, CELL), max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    closed=st.booleans(),
)
def test_reads_what_csv_writes(
    tmp_path: Path, rows: list[tuple[str, str]], end: str, *, closed: bool
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    data = text.getvalue() if closed else text.getvalue().removesuffix(end)
    found, damaged = read(tmp_path / "x.csv", data.encode())
    assert found == [(at, [cell.strip() for cell in row]) for at, row in enumerate(rows)]
    assert damaged == []


SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from(SPACES), max_size=3),
            st.sampled_from(
                ["", "x", "é", "客 户", "\u200bz", "\u2060", "NULL", "nul", "N/A", "#N/A", "\\N", "NaN ."]
            ),
            st.text(st.sampled_from(SPACES), max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_white_space_of_any_kind_around_a_cell_is_no_part_of_it(
    tmp_path: Path, cells: list[tuple[str, str, str]]
) -> None:
    data = "a,b\n" + "".join(f'"{before}{cell}{after}",1\n' for before, cell, after in cells)
    found, damaged = read(tmp_path / "x.csv", data.encode())
    absent = {"NULL", "N/A", "#N/A", "\\N"}
    assert [row[0] for _, row in found] == ["" if cell in absent else cell for _, cell, _ in cells]
    assert damaged == []


def test_whole_cells_that_stand_for_none_come_empty(tmp_path: Path) -> None:
    words = ["NULL", "null", "\\N", "None", "NaN", "nan", "N/A", "#N/A"]
    others = ["Null", "NULLs", "none", "NAN", "n/a", "N", "0", "-", "xNULL"]
    text = "".join(f'{word},"{word}"\n' for word in words + others)
    rows, _ = read(tmp_path / "x.csv", f"a,b\n{text}".encode())
    assert [cells for _, cells in rows] == [["", ""]] * len(words) + [[word, word] for word in others]


def test_ragged_lines_keep_their_ordinals_and_text(tmp_path: Path) -> None:
    rows, damaged = read(tmp_path / "x.csv", b"a,b\n1,2\n3\n\n4,5,6\r\n\xffz\n7,8")
    assert rows == [(0, ["1", "2"]), (4, ["7", "8"])]
    assert damaged == [(1, "3"), (2, "4,5,6"), (3, "\ufffdz")]


def test_text_after_a_closing_quote_is_damage(tmp_path: Path) -> None:
    rows, damaged = read(tmp_path / "x.csv", b'a,b\n"1"x,2\n3,4\n')
    assert rows == [(1, ["3", "4"])]
    assert damaged == [(0, '"1"x,2')]


def test_a_quote_never_closed_damages_its_line_only(tmp_path: Path) -> None:
    rows, damaged = read(tmp_path / "x.csv", b'a,b\n1,"2\n3,4\n5,6\n')
    assert rows == [(1, ["3", "4"]), (2, ["5", "6"])]
    assert damaged == [(0, '1,"2')]


def test_a_quote_inside_a_cell_is_a_character(tmp_path: Path) -> None:
    rows, damaged = read(tmp_path / "x.csv", b'a,b\n5" disk,"say ""hi"""\n')
    assert rows == [(0, ['5" disk', 'say "hi"'])]
    assert damaged == []


def test_whitespace_delimiter(tmp_path: Path) -> None:
    data = b'a  b\r\n  1 \t 2  \r\n\r\n3 4\r\n   \r\n5\r\n"6 7'
    rows, damaged = read(tmp_path / "x.txt", data, delimiter="whitespace")
    assert rows == [(0, ["1", "2"]), (1, ["3", "4"]), (3, ['"6', "7"])]
    assert damaged == [(2, "5")]


def test_only_wanted_columns_and_their_order(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "x.tsv", b"a\tb\tc\n1\t2\t3\n", columns=("c", "zz", "a"))
    assert rows == [(0, ["3", "1"])]


def test_encodings_and_byte_order_marks(tmp_path: Path) -> None:
    for data, form in (
        ("a,b\né,2\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("a,b\né,2\n".encode("utf-16"), {}),
        (b"\xef\xbb\xbf" + "a,b\né,2\n".encode(), {}),
    ):
        assert read(tmp_path / "x.csv", data, **form) == ([(0, ["é", "2"])], [])


def test_names_given_for_a_file_without_header(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"1,2\n3,4\n")
    (file,) = find_files([path], InputFormat(columns=("a", "b")))
    (_, chunk) = read_delimited(file, ("b",), first_row=10, tick=lambda _: None)
    assert chunk.batch.to_pydict() == {"b": ["2", "4"]}
    assert chunk.rows.tolist() == [10, 11]
