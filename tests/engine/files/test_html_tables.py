"""Pages of HTML under the name of a workbook, as back offices hand them out, and other files under that name."""

from pathlib import Path

import pytest

from rfmstream.engine.files import input_files
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import InputError

NAMES = ("customer_id", "order_id", "occurred_at", "amount")


def read(path: Path, toml: str | None = None) -> tuple[list[tuple], list[tuple]]:
    input_map = None
    if toml is not None:
        (path.parent / "map.toml").write_text(f'name = "test"\n{toml}')
        input_map = load_map(path.parent / "map.toml")
    good, bad = [], []
    for orders, rejected in open_orders([path], input_map=input_map, currency="EUR"):
        good += [(row["customer_id"], row["order_id"], row["amount_minor"]) for row in orders.to_pylist()]
        bad += [(row["row"], row["reason"]) for row in rejected.to_pylist()]
    return good, bad


def page(*rows: str, head: str = "") -> str:
    header = "<tr>" + "".join(f"<th>{name}</th>" for name in NAMES) + "</tr>"
    return f"<html><head>{head}</head><body><table border=1>{header}{''.join(rows)}</table></body></html>"


def test_a_table_in_a_page(tmp_path: Path) -> None:
    rows = [
        "<tr><td>ann</td><td>A&amp;1</td><td>2024-01-01 10:00:00</td><td>12.50</td></tr>",
        # End tags may be left out, and what wraps a cell's text is no part of it.
        "<TR><TD class=x> <b>bo</b><script>if (1 < 2) x()</script><style>b {}</style>\n<TD>2<TD>2024-01-02<TD> 7 ",
        "<tr><td>NULL</td><td>3</td><td>2024-01-03</td><td>&nbsp;8&nbsp;</td></tr>",
        "<tr><td colspan=3>Total</td><td>27.50</td></tr>",
    ]
    for name in ("orders.xls", "orders.csv", "orders.html", "orders"):
        path = tmp_path / name
        path.write_text(page(*rows))
        assert read(path) == (
            [("ann", "A&1", 1250), ("bo", "2", 700)],
            [(2, "missing_customer_id"), (3, "missing_order_id")],
        )


def test_a_cell_that_spans_rows_is_blank_below_and_moves_no_other(tmp_path: Path) -> None:
    rows = [
        "<tr><td rowspan=3>ann</td><td>1</td><td rowspan=2>2024-01-01</td><td>1</td></tr>",
        "<tr><td>2</td><td>2</td></tr>",
        "<tr><td>3</td><td>2024-01-02</td><td>3</td></tr>",
        "<tr><td>bob</td><td>4</td><td>2024-01-02</td><td>4</td></tr>",
        "<tr><td rowspan=9 colspan=2>bob</td><td>2024-01-02</td><td>4</td></tr>",
    ]
    path = tmp_path / "orders.xls"
    # A cell that spans more rows than its table has does not reach into the next.
    path.write_text(page(*rows) + page("<tr><td>cy</td><td>5</td><td>2024-01-02</td><td>5</td></tr>"))
    good, bad = read(path)
    assert good == [("ann", "1", 100), ("bob", "4", 400), ("cy", "5", 500)]
    assert [row for row, _ in bad] == [1, 2, 4, 5]
    toml = '[input]\nfill_down = ["customer_id", "occurred_at"]\n[[event]]\n' + "".join(
        f'{name} = "{name}"\n' for name in NAMES
    )
    assert read(path, toml)[0][:4] == [
        *(("ann", "1", 100), ("ann", "2", 200)),
        *(("ann", "3", 300), ("bob", "4", 400)),
    ]


def test_title_rows_and_blocks_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_files, "BLOCK_BYTES", 7)
    path = tmp_path / "orders.xls"
    text = page(
        *(f"<tr><td>顾客{at}</td><td>{at}</td><td>2024-01-01</td><td>1</td></tr>" for at in range(50))
    )
    path.write_text(text.replace("<table border=1>", "<table><tr><td colspan=4>Orders</td></tr>"))
    assert read(path) == ([(f"顾客{at}", str(at), 100) for at in range(50)], [])


@pytest.mark.parametrize("encoding", ["gbk", "gb2312", "utf-8"])
def test_the_page_names_its_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "orders.xls"
    row = "<tr><td>王小明</td><td>1</td><td>2024-01-01</td><td>5</td></tr>"
    head = f'<meta http-equiv="Content-Type" content="text/html; charset={encoding}">'
    path.write_bytes(page(row, head=head).encode(encoding))
    assert read(path)[0] == [("王小明", "1", 500)]


def test_a_map_reads_a_page_where_it_expects_text(tmp_path: Path) -> None:
    path = tmp_path / "orders.xls"
    path.write_text(page("<tr><td>a</td><td>1</td><td>31.01.2024</td><td>1.234,50</td></tr>"))
    toml = (
        '[input]\nformat = "csv"\ndecimal = ","\n[[event]]\ncustomer_id = "customer_id"\norder_id = "order_id"\n'
        'occurred_at = { column = "occurred_at", format = "%d.%m.%Y" }\n'
        'amount = { column = "amount", thousands = "." }\n'
    )
    assert read(path, toml) == ([("a", "1", 123450)], [])


def test_a_page_without_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "login.xls"
    path.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    with pytest.raises(InputError, match="HTML page without a table"):
        read(path)


XML = (
    '<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>\n'
    '<Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet" '
    'xmlns:ss="urn:schemas-microsoft-com:office:spreadsheet">{}</Workbook>'
)


def sheet(name: str, *rows: str) -> str:
    return f'<Worksheet ss:Name="{name}"><Table>{"".join(f"<Row>{row}</Row>" for row in rows)}</Table></Worksheet>'


def cells(*values: object) -> str:
    return "".join(f'<Cell><Data ss:Type="String">{value}</Data></Cell>' for value in values)


def test_a_spreadsheet_of_2003(tmp_path: Path) -> None:
    rows = [
        cells(*NAMES),
        cells("ann", "A&amp;1", "2024-01-31T10:05:07.000", "12.5"),
        # Cells that are empty are left out, and the next one says where it stands.
        cells("bo")
        + '<Cell ss:Index="3"><Data ss:Type="DateTime">2024-02-01T00:00:00.000</Data></Cell>'
        + cells(7),
        cells("顾客", 3, "2024-02-01", 8),
    ]
    text = XML.format(sheet("Orders", cells("Orders of 2024"), *rows) + sheet("Other", cells("x")))
    for name in ("orders.xls", "orders.xml", "orders.csv"):
        path = tmp_path / name
        path.write_text(text)
        expected = ([("ann", "A&1", 1250), ("顾客", "3", 800)], [(1, "missing_order_id")])
        assert read(path) == expected
    toml = (
        '[input]\nformat = "csv"\nsheet = "{}"\n[[event]]\ncustomer_id = "customer_id"\norder_id = "order_id"\n'
        'occurred_at = {{ column = "occurred_at", format = "%d.%m.%Y" }}\namount = "amount"\n'
    )
    path.write_text(XML.format(sheet("Other", cells("x")) + sheet("Orders", *rows)))
    assert read(path, toml.format("Orders")) == expected
    with pytest.raises(InputError, match="has no sheet 'None'; its sheets are Other, Orders"):
        read(path, toml.format("None"))


def test_xml_that_is_damaged_or_grows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.xls"
    whole = XML.format(sheet("s", cells(*NAMES)))
    path.write_text(whole[:-30])
    with pytest.raises(InputError, match="is an XML spreadsheet that cannot be read"):
        read(path)
    path.write_text(whole.replace("<Workbook", '<!DOCTYPE w [<!ENTITY a "aaaa">]>\n<Workbook', 1))
    with pytest.raises(InputError, match="is XML with entities of its own"):
        read(path)
    path.write_text(whole.replace("<Cell>", '<Cell ss:Index="20000">', 1))
    with pytest.raises(InputError, match="a row has more than 16,384 cells"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_with_tabs_under_the_name_of_a_workbook(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "orders.xls"
    path.write_bytes(("\t".join(NAMES) + "\nänn\t1\t2024-01-01\t5\n").encode(encoding))
    if encoding in ("utf-16-le", "utf-16-be"):
        # Without a mark only a text is UTF-16 whose name says that it is text.
        path = path.rename(tmp_path / "orders.tsv")
    assert read(path) == ([("änn", "1", 500)], [])


def test_a_row_of_too_many_cells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.xls"
    path.write_text("<table><tr>" + "<td colspan=1000>x" * 17)
    with pytest.raises(InputError, match="a row has more than 16,384 cells"):
        read(path)
