"""Delimited text as people have it: other signs, title lines, missing headers, Chinese encodings, blank cells."""

from pathlib import Path

import pytest

from rfmstream.engine.files import delimited
from rfmstream.engine.files.encodings import guess_encoding
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import ConfigError, InputError

EVENT = '[[event]]\ncustomer_id = "who"\norder_id = "no"\noccurred_at = "when"\namount = "sum"\n'
HEADER = "customer_id,order_id,occurred_at,amount\n"


def read(
    tmp_path: Path, text: str | bytes, toml: str | None = None, name: str = "in.csv"
) -> tuple[list[tuple], list[tuple]]:
    """Return (customer, order, minor units) of the orders and (row, reason) of the rejected rows."""
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    input_map = None
    if toml is not None:
        (tmp_path / "map.toml").write_text(f'name = "test"\n{toml}')
        input_map = load_map(tmp_path / "map.toml")
    good, bad = [], []
    for orders, rejected in open_orders([tmp_path / name], input_map=input_map, currency="EUR"):
        good += [(row["customer_id"], row["order_id"], row["amount_minor"]) for row in orders.to_pylist()]
        bad += [(row["row"], row["reason"]) for row in rejected.to_pylist()]
    return good, bad


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("12,5", 1250),
        ("1.234,56", 123456),
        ("-7", None),
        ("7", 700),
        ("1.234", 123400),
        ("1.234.567,89", 123456789),
        ("12.5", None),
        ("1.23,4", None),
        ("1,5,0", None),
    ],
)
def test_a_decimal_comma(tmp_path: Path, text: str, minor: int | None) -> None:
    table = f"who;no;when;sum\na;1;2024-01-01;{text}\n"
    whole = f'[input]\ndelimiter = ";"\ndecimal = ","\n{EVENT}'
    for toml in (
        whole.replace('"sum"', '{ column = "sum", thousands = "." }'),
        whole.replace('decimal = ","\n', "").replace(
            '"sum"', '{ column = "sum", thousands = ".", decimal = "," }'
        ),
    ):
        good, bad = read(tmp_path, table, toml)
        assert good == ([("a", "1", minor)] if minor is not None else [])
        assert len(bad) == (minor is None)


@pytest.mark.parametrize(("toml", "sign"), [("", "."), ('[input]\ndecimal = ","\n', ",")])
def test_thousands_by_the_decimal_sign_are_refused(tmp_path: Path, toml: str, sign: str) -> None:
    event = EVENT.replace('"sum"', f'{{ column = "sum", thousands = "{sign}" }}')
    with pytest.raises(
        ConfigError, match=rf"event\[1\]\.amount\.thousands: is '\{sign}', and so is the decimal sign"
    ):
        read(tmp_path, HEADER, toml + event)


def test_a_decimal_comma_without_thousands_takes_no_point(tmp_path: Path) -> None:
    table = "who;no;when;sum\na;1;2024-01-01;1.234\nb;2;2024-01-01;1,234\nc;3;2024-01-01;1,20\n"
    good, bad = read(tmp_path, table, f'[input]\ndelimiter = ";"\ndecimal = ","\n{EVENT}')
    assert good == [("c", "3", 120)]
    assert bad == [(0, "bad_amount"), (1, "bad_amount")]


def test_a_decimal_comma_holds_in_sums_and_conditions_but_not_in_constants_and_ids(tmp_path: Path) -> None:
    event = EVENT.replace('"sum"', '{ difference = ["sum", { constant = "0.50" }] }')
    toml = f'[input]\ndecimal = ","\n[[exclude]]\nwhen = {{ column = "sum", less_than = "1.5" }}\n{event}'
    table = 'who,no,when,sum\na.b@c.de,"1,5",2024-01-01,"2,00"\nb,2,2024-01-01,"1,49"\n'
    assert read(tmp_path, table, toml) == ([("a.b@c.de", "1,5", 150)], [])


@pytest.mark.parametrize("block_bytes", [5, 4 << 20])
def test_title_lines_are_passed_over_where_the_header_is_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr("rfmstream.engine.files.input_files.BLOCK_BYTES", block_bytes)
    # A title may go by the name of a column.
    for first in ('Report: Orders, by "Ann"', "amount,1234.00", "occurred_at", "x,customer_id"):
        title = f"{first}\nGenerated: 2024-01-01\n\n"
        assert read(tmp_path, f"{title}{HEADER}a,1,2024-01-01,5\n") == ([("a", "1", 500)], [])
    # Below a line that may be the header nothing else is.
    two = "customer_id,order_id\nb,2\n"
    with pytest.raises(InputError, match="no column occurred_at"):
        read(tmp_path, f"{two}{HEADER}a,1,2024-01-01,5\n")


def test_title_lines_are_skipped_where_the_map_counts_them(tmp_path: Path) -> None:
    table = "amount,occurred_at,customer_id\n\nwho,no,when,sum\na,1,2024-01-01,5\n"
    assert read(tmp_path, table, f"[input]\nskip = 2\n{EVENT}") == ([("a", "1", 500)], [])


def test_two_lines_that_could_be_the_header_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column customer_id"):
        read(tmp_path, f"Orders\n{HEADER}a,1,2024-01-01,5\n{HEADER}")


def test_excel_says_the_delimiter_in_the_first_line(tmp_path: Path) -> None:
    for sign in "|;\t^~":
        table = f"{HEADER}a,1,2024-01-01,5\n".replace(",", sign)
        assert read(tmp_path, f"sep={sign}\r\n{table}") == ([("a", "1", 500)], [])


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_seen_in_the_header(tmp_path: Path, delimiter: str) -> None:
    table = f"{HEADER}a,1,2024-01-01,5\n".replace(",", delimiter)
    assert read(tmp_path, table) == ([("a", "1", 500)], [])


def test_a_file_without_a_header_is_told_by_the_count_of_its_cells(tmp_path: Path) -> None:
    toml = f'[input]\nheaderless = [["who", "no", "when", "sum"], ["x", "who", "no", "when", "sum"]]\n{EVENT}'
    assert read(tmp_path, "a,1,2024-01-01,5\n", toml) == ([("a", "1", 500)], [])
    assert read(tmp_path, "9,a,1,2024-01-01,5\n", toml) == ([("a", "1", 500)], [])
    assert read(tmp_path, "sum,when,no,who\n5,2024-01-01,1,a\n", toml) == ([("a", "1", 500)], [])
    with pytest.raises(InputError, match="no column 'who'"):
        read(tmp_path, "a,1\n", toml)


@pytest.mark.parametrize(("head", "name"), [("sum ", "sum"), ("sum", "sum "), ("\u00a0sum ", " sum")])
def test_blanks_around_a_column_name_do_not_matter(tmp_path: Path, head: str, name: str) -> None:
    table = f"who,no,when,{head}\na,1,2024-01-01,5\n"
    assert read(tmp_path, table, EVENT.replace('"sum"', f'"{name}"')) == ([("a", "1", 500)], [])


def test_two_names_that_differ_by_blanks_are_two_columns(tmp_path: Path) -> None:
    table = "who,no,when,sum,sum \na,1,2024-01-01,5,7\n"
    assert read(tmp_path, table, EVENT.replace('"sum"', '{ sum = ["sum", "sum "] }'))[0] == [("a", "1", 1200)]


def test_lines_of_an_old_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.files.input_files.BLOCK_BYTES", 50)
    table = f"{HEADER}a,1,2024-01-01,5\nb,2,2024-01-01,6\n".replace("\n", "\r")
    assert read(tmp_path, table)[0] == [("a", "1", 500), ("b", "2", 600)]


CHINESE = "顾客,订单,时间,金额\n"
CHINESE_EVENT = '[[event]]\ncustomer_id = "顾客"\norder_id = "订单"\noccurred_at = "时间"\namount = "金额"\n'


@pytest.mark.parametrize("encoding", ["gbk", "gb2312"])
@pytest.mark.parametrize("block_bytes", [7, 4 << 20])
def test_a_bad_byte_costs_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, block_bytes: int
) -> None:
    monkeypatch.setattr("rfmstream.engine.files.input_files.BLOCK_BYTES", block_bytes)
    lines = [
        "张三,一号,2024-01-01,5\n".encode("gbk"),
        b"\xc0\xff\xee,2,2024-01-01,6\n",
        b"b\xc0,3,2024-01-01,6\n",
        "镕€,四号,2024-01-01,7\n".encode("gb18030"),
    ]
    found = read(
        tmp_path,
        CHINESE.encode("gbk") + b"".join(lines),
        f'[input]\nencoding = "{encoding}"\n{CHINESE_EVENT}',
    )
    assert found == ([("张三", "一号", 500), ("镕€", "四号", 700)], [(1, "malformed"), (2, "malformed")])


def test_a_bad_byte_in_a_column_that_nobody_reads_costs_nothing(tmp_path: Path) -> None:
    table = CHINESE.strip().encode("gbk") + b",x\n" + "张三,一号,2024-01-01,5,".encode("gbk") + b"\xff\xff\n"
    assert read(tmp_path, table, f'[input]\nencoding = "gbk"\n{CHINESE_EVENT}') == (
        [("张三", "一号", 500)],
        [],
    )


def test_big5_is_what_windows_writes_by_that_name(tmp_path: Path) -> None:
    table = "who,no,when,sum\n碁銹,€恒裏,2024-01-01,5\n".encode("cp950") + b"\xff,3,2024-01-01,5\n"
    found = read(tmp_path, table, f'[input]\nencoding = "big5"\n{EVENT}')
    assert found == ([("碁銹", "€恒裏", 500)], [(1, "malformed")])


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        ("顾客编号,订单编号,付款时间,买家实际支付金额", "gbk", "GBK"),
        ("會員編號,訂單編號,付款時間,實收金額", "big5", "Big5"),
    ],
)
def test_the_encoding_of_a_header_that_is_no_utf8_is_named(
    tmp_path: Path, text: str, encoding: str, named: str
) -> None:
    with pytest.raises(InputError, match=f'reads as {named}; set encoding = "{encoding}"'):
        read(tmp_path, f"{text}\na,1,2024-01-01,5\n".encode(encoding))


@pytest.mark.parametrize(
    ("name", "encoding", "named"),
    [
        *(("顾客", "gbk", "GBK"), ("顧客", "big5", "Big5"), ("顧客", "shift_jis", "Shift-JIS")),
        *(("고객", "euc_kr", "EUC-KR"), ("Käufer", "cp1252", "cp1252"), ("Käufer", "mac_roman", "mac_roman")),
        *(("Zákazník č.", "cp1250", "cp1250"), ("Клиент", "cp1251", "cp1251")),
    ],
)
@pytest.mark.parametrize(("delimiter", "title"), [(",", ""), (";", ""), (";", "Orders\n")])
def test_the_encoding_in_which_a_header_names_what_is_wanted_is_named(
    tmp_path: Path, name: str, encoding: str, named: str, *, delimiter: str, title: str
) -> None:
    toml = EVENT.replace('"who"', f'"{name}"')
    table = f"{title}{name},no,when,sum\na,1,2024-01-01,5\n".replace(",", delimiter).encode(encoding)
    with pytest.raises(InputError, match=f'reads as {named}; set encoding = "{encoding}"'):
        read(tmp_path, table, toml)
    assert read(tmp_path, table, f'[input]\nencoding = "{encoding}"\n{toml}') == ([("a", "1", 500)], [])
    # A name that nobody reads may be written as it likes.
    others = f"who,no,when,sum,{name}\na,1,2024-01-01,5,\n".replace(",", delimiter).encode(encoding)
    assert read(tmp_path, others, EVENT) == ([("a", "1", 500)], [])


def test_a_name_in_two_forms_of_unicode_is_one(tmp_path: Path) -> None:
    table = "Ka\u0308ufer,no,when,sum\na,1,2024-01-01,5\n"
    assert read(tmp_path, table, EVENT.replace('"who"', '"K\u00e4ufer"')) == ([("a", "1", 500)], [])


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "big5", "shift_jis"])
def test_a_file_that_shows_to_be_utf8_is_read_as_that(tmp_path: Path, encoding: str, mark: str) -> None:
    table = mark + "顾客编号,no,when,sum\n张三,1,2024-01-01,5\n"
    toml = f'[input]\nencoding = "{encoding}"\n' + EVENT.replace('"who"', '"顾客编号"')
    assert read(tmp_path, table, toml) == ([("张三", "1", 500)], [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wider_unicode_is_seen_by_its_mark(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, (HEADER + "张,1,2024-01-01,5\n").encode(encoding)) == ([("张", "1", 500)], [])


@pytest.mark.parametrize(("encoding", "named"), [("gbk", "GBK"), ("big5", "Big5")])
def test_the_encoding_of_texts_that_are_no_utf8_is_named(tmp_path: Path, encoding: str, named: str) -> None:
    names = {"gbk": "张三李四王五赵六欧阳修", "big5": "張三李四王五趙六歐陽修"}[encoding]
    rows = [f"{name}{name},{at},2024-01-01,5\n".encode(encoding) for at, name in enumerate(names)]
    with pytest.raises(
        InputError, match=f'its texts are no UTF-8 and read as {named}; set encoding = "{encoding}"'
    ):
        read(tmp_path, HEADER.encode() + b"".join(rows))
    # One that is UTF-8 among them, or too few of them: each is the fault of its row.
    mixed = read(tmp_path, HEADER.encode() + b"".join(rows) + "张,x,2024-01-01,5\n".encode())
    assert mixed[0][-1] == ("张", "x", 500)
    assert len(mixed[0]) + len(mixed[1]) == len(rows) + 1
    assert {reason for _, reason in mixed[1]} == {"malformed"}
    assert read(tmp_path, HEADER.encode() + rows[0]) == ([], [(0, "malformed")])


def test_a_few_damaged_texts_among_others_are_the_fault_of_their_rows(tmp_path: Path) -> None:
    rows = [f"Müller{at},{at},2024-01-01,5\n".encode() for at in range(9)]
    rows += ["李四王五,a,2024-01-01,5\n张三李四,b,2024-01-01,5\n四王五,c,2024-01-01,5\n".encode("gbk")]
    good, bad = read(tmp_path, HEADER.encode() + b"".join(rows))
    assert (len(good), bad) == (9, [(9, "malformed"), (10, "malformed"), (11, "malformed")])


def test_no_encoding_is_named_that_is_not_likely() -> None:
    assert guess_encoding("Müller, Strauß, Groß, Öl".encode("latin-1")) is None
    assert guess_encoding(b"plain") is None


def test_blank_cells_take_the_value_above_through_damaged_lines_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_ROWS_MAX", 2)
    table = (
        "who,no,when,sum\n,0,2024-01-01,1\na,1,2024-01-01,1\n,2,,1\n,y\n"
        " \u3000,3,2024-01-02,1\nb,4,2024-01-02,1\n\u00a0,5,,1\n"
    )
    found = read(tmp_path, table, f'[input]\nfill_down = ["who", "when"]\n{EVENT}')
    assert found[0] == [("a", "1", 100), ("a", "2", 100), ("a", "3", 100), ("b", "4", 100), ("b", "5", 100)]
    assert found[1] == [(0, "missing_customer_id"), (3, "malformed")]


@pytest.mark.parametrize("rows_max", [1, 2, 9])
@pytest.mark.parametrize("damaged", ['"b"x,2,2024-01-01,1', "b,2,2024-01-01,1,9", "b,2"])
def test_blank_cells_below_a_damaged_line_that_states_a_value_are_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str, rows_max: int
) -> None:
    monkeypatch.setattr(delimited, "_ROWS_MAX", rows_max)
    rows = (
        f"a,1,2024-01-01,1\n{damaged}\n,3,2024-01-01,1\n,4,2024-01-01,1\nc,5,2024-01-01,1\n,6,2024-01-01,1\n"
    )
    found = read(tmp_path, "who,no,when,sum\n" + rows, f'[input]\nfill_down = ["who"]\n{EVENT}')
    assert found[0] == [("a", "1", 100), ("c", "5", 100), ("c", "6", 100)]
    assert found[1] == [(1, "malformed"), (2, "missing_customer_id"), (3, "missing_customer_id")]


@pytest.mark.parametrize("encoding", ["zlib_codec", "rot13", "hex", "base64", "martian", "undefined"])
def test_an_encoding_that_is_none_of_text_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ConfigError, match=r"input\.encoding: .* is no encoding of text"):
        read(tmp_path, HEADER, f'[input]\nencoding = "{encoding}"\n{EVENT}')
