"""Files of every format and packing, sorted or not, come out as the same orders in order of time."""

import gzip
import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files.input_files import find_files
from rfmstream.engine.files.jsonlines import read_json_lines
from rfmstream.engine.files.readers import read_chunks
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.mapping import InputFormat

COUNT = 3000


def history(*, seed: int = 1, in_order: bool = False) -> pa.Table:
    """Orders as text columns, with many equal times and ids that need quoting."""
    rng = np.random.default_rng(seed)
    seconds = rng.integers(0, COUNT // 4, COUNT)
    if in_order:
        seconds.sort()
    return pa.table(
        {
            "customer_id": pa.array([f'c,"{at % 97}"' for at in range(COUNT)]),
            "order_id": pa.array([f"o{at}" for at in range(COUNT)]),
            "occurred_at": pa.array(seconds * 1_000_000, pa.timestamp("us")).cast(pa.string()),
            "amount": pa.array([f"{at}.{at % 100:02}" for at in range(COUNT)]),
        }
    )


def expected(table: pa.Table) -> list[tuple]:
    rows = zip(
        *(table.column(name).to_pylist() for name in table.column_names), range(table.num_rows), strict=True
    )
    return sorted(
        (((t, row), c, o, int(Decimal(a) * 100)) for c, o, t, a, row in rows), key=lambda order: order[0]
    )


def write(table: pa.Table, path: Path) -> Path:
    suffixes = path.suffixes
    plain = path.with_name("plain")
    match suffixes[0]:
        case ".parquet":
            pq.write_table(table, plain, row_group_size=700)
        case ".arrow":
            with pa.OSFile(str(plain), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, 700)
        case ".arrows":
            with pa.OSFile(str(plain), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table, 700)
        case ".csv":
            pyarrow.csv.write_csv(table, plain)
        case ".jsonl":
            plain.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
        case ".json":
            plain.write_text(json.dumps(table.to_pylist(), indent=1))
    data = plain.read_bytes()
    plain.unlink()
    if suffixes[-1] == ".gz":
        # Two members, as a log that was appended to has.
        data = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])
    elif suffixes[-1] == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def orders(*paths: Path, **options: object) -> tuple[list[tuple], list[dict]]:
    found, rejected = [], []
    for good, bad in open_orders(list(paths), currency="CNY", **options):
        good.validate(full=True)
        rejected += bad.to_pylist()
        for row in good.to_pylist():
            us = row["occurred_at"].strftime("%Y-%m-%d %H:%M:%S.%f")
            found.append(((us, row["row"]), row["customer_id"], row["order_id"], row["amount_minor"]))
    return found, rejected


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows", ".csv", ".jsonl", ".json"])
def test_every_format_and_packing(tmp_path: Path, suffix: str, packing: str) -> None:
    table = history()
    path = write(table, tmp_path / f"orders{suffix}{packing}")
    assert orders(path) == (expected(table), [])
    nameless = path.rename(tmp_path / "orders")
    assert orders(nameless) == (expected(table), [])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl.gz"])
@pytest.mark.parametrize("budget_bytes", [1, 20_000, 100_000, 10**9])
@pytest.mark.parametrize("in_order", [True, False])
def test_the_budget_changes_nothing(
    tmp_path: Path, suffix: str, budget_bytes: int, *, in_order: bool
) -> None:
    tables = [history(seed=seed, in_order=in_order) for seed in (1, 2, 3)]
    paths = [write(table, tmp_path / f"{at}{suffix}") for at, table in enumerate(tables)]
    found, rejected = orders(*paths, memory_budget_bytes=budget_bytes)
    assert found == expected(pa.concat_tables(tables))
    assert rejected == []


def test_external_sort_of_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.files.readers.CHUNK_ROWS", 100)
    monkeypatch.setattr("rfmstream.engine.files.runs.RUN_BATCH_ROWS", 7)
    monkeypatch.setattr("rfmstream.engine.files.sorting.BATCH_ROWS", 64)
    table = history()
    path = write(table, tmp_path / "o.parquet")
    spilled = tmp_path / "spill"
    spilled.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spilled))
    assert orders(path, memory_budget_bytes=40_000)[0] == expected(table)
    assert list(spilled.iterdir()) == []


def at_one_instant(*, seed: int) -> pa.Table:
    """Events of a few instants, in order of time, paid ones among others in any order."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["paid", "refunded", "cancelled", "adjusted"], COUNT)
    table = history(in_order=True).append_column("type", pa.array(kinds))
    seconds = np.sort(rng.integers(0, 12, COUNT))
    times = pa.array(seconds * 1_000_000, pa.timestamp("us")).cast(pa.string())
    return table.set_column(2, "occurred_at", times)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("budget_bytes", [1, 20_000, 10**9])
def test_at_one_instant_paid_events_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, budget_bytes: int, *, backwards: bool
) -> None:
    monkeypatch.setattr("rfmstream.engine.files.readers.CHUNK_ROWS", 100)
    table = at_one_instant(seed=4)
    if backwards:
        table = table.take(pa.array(np.arange(COUNT)[::-1]))
    paths = [
        write(part, tmp_path / f"{at}{suffix}")
        for at, part in enumerate([table.slice(0, 1400), table.slice(1400)])
    ]
    times, kinds = table.column("occurred_at").to_pylist(), table.column("type").to_pylist()
    in_order = sorted(range(COUNT), key=lambda row: (times[row], kinds[row] != "paid", row))
    stream = open_orders(paths, currency="CNY", memory_budget_bytes=budget_bytes)
    assert [row for good, _ in stream for row in good.column("row").to_pylist()] == in_order
    assert stream.is_sorted is (None if budget_bytes == 10**9 and suffix != ".parquet" else not backwards)


def test_sorted_input_is_streamed(tmp_path: Path) -> None:
    whole = history(in_order=True)
    write(whole.slice(0, 1000), tmp_path / "1.parquet")
    write(whole.slice(1000), tmp_path / "2.parquet")
    stream = open_orders([tmp_path], currency="CNY", memory_budget_bytes=1)
    first, _ = next(stream)
    assert stream.is_sorted
    assert (first.num_rows, stream.rows_read) == (1000, 1000)
    stream.close()


def test_stopping_early_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(history(), tmp_path / "o.csv")
    spilled = tmp_path / "spill"
    spilled.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spilled))
    stream = open_orders([path], currency="CNY", memory_budget_bytes=1000)
    next(stream)
    assert list(spilled.iterdir()) != []
    stream.close()
    assert list(spilled.iterdir()) == []


def test_directories_in_order_of_name_without_hidden_files(tmp_path: Path) -> None:
    table = history()
    (tmp_path / "b").mkdir()
    write(table.slice(0, 10), tmp_path / "a.csv")
    write(table.slice(10, 10), tmp_path / "b" / "a.parquet")
    write(table.slice(20, 10), tmp_path / "c.jsonl")
    for hidden in (".partial.csv", "_SUCCESS", "b/._a.csv"):
        (tmp_path / hidden).write_bytes(b"junk")
    assert orders(tmp_path)[0] == expected(table.slice(0, 30))


def test_progress_rises_to_the_whole(tmp_path: Path) -> None:
    paths = [write(history(seed=seed), tmp_path / f"{seed}.csv.gz") for seed in (1, 2)]
    seen = []
    for _ in open_orders(paths, currency="CNY", on_progress=seen.append):
        pass
    read = [progress.done for progress in seen if progress.stage == "read"]
    assert read == sorted(read)
    assert read[-1] == seen[0].total == sum(path.stat().st_size for path in paths)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total, seen[-1].rows) == ("sorted", 6000, 6000, 6000)


def test_damaged_lines_are_rejected_with_their_text(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(
        b"order_id,customer_id,amount,occurred_at\n"
        b"1,c,1,2024-01-03\n"
        b"ragged\n"
        b"2,\xff,1,2024-01-02\n"
        b"3,c,x,2024-01-01\n"
    )
    (tmp_path / "2.jsonl").write_bytes(
        b'{"order_id": 4, "customer_id": 17850.0, "amount": 0.10, "occurred_at": "2024-01-01T00:00:00Z"}\n'
        b"\n"
        b"not json\n"
        b"[1]\n" + b"[" * 100_000 + b"\n"
        b'{"order_id": {"a": 1}, "customer_id": "c", "amount": 1, "occurred_at": "2024-01-01"}\n'
        b'{"order_id": "\\ud800", "customer_id": "c", "amount": 1, "occurred_at": "2024-01-01"}\n'
        b'{"order_id": "5", "customer_id": "c", "amount": NaN, "occurred_at": "2024-01-01"}\n'
        b'{"order_id": "6", "customer_id": "c\xff", "amount": 1, "occurred_at": "2024-01-01"}\n'
        b'{"order_id": true, "customer_id": 123456789012345678901234567890, "amount": 1E1, "occurred_at": "2024-01-01"}'
    )
    found, rejected = orders(tmp_path)
    assert [(row, c, o, amount) for (_, row), c, o, amount in found] == [
        (4, "17850.0", "4", 10),
        (12, "123456789012345678901234567890", "true", 1000),
        (0, "c", "1", 100),
    ]
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (1, "malformed"),
        (2, "malformed"),
        (3, "bad_amount"),
        *((row, "malformed") for row in range(5, 12)),
    ]
    by_row = {row["row"]: row for row in rejected}
    assert (by_row[1]["raw"], by_row[1]["source"]) == ("ragged", str(tmp_path / "1.csv"))
    assert (by_row[2]["raw"], by_row[2]["customer_id"], by_row[2]["order_id"]) == (None, "\ufffd", "2")
    assert (by_row[5]["raw"], by_row[6]["raw"]) == ("not json", "[1]")
    assert by_row[8]["raw"].startswith('{"order_id": {"a"')


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("o.csv", b"", "is empty"),
        ("o.csv", b"a,b\n1,2\n", "no column customer_id"),
        ("o.parquet", b"PAR1 but not really", "cannot be read"),
        ("o.arrow", b"ARROW1 but not really", "cannot be read"),
        ("o.csv.gz", b"customer_id,order_id\n", "not compressed"),
        (
            "o.csv.gz",
            gzip.compress(b"customer_id,order_id,occurred_at,amount\n" * 99, mtime=0)[:-9],
            "cannot be read",
        ),
        ("o.json", b'[{"customer_id": 1},', "no JSON array"),
        ("o.dat", b"\x00\x01\x02", "cannot be told"),
        ("o", b"some words", "cannot be told"),
        ("o.csv", b'a,"b\n' + b"1,2\n" * (5 << 20), "first line does not end"),
        ("o.csv", b"c" * 140_000 + b",b\n1,2\n", "first line cannot be read"),
        ("o.csv", b"customer_id,b,c\n", "no column order_id.*the columns are customer_id, b, c"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        orders(tmp_path / name)
    assert caught.value.source == str(tmp_path / name)


def test_missing_and_empty_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_orders([tmp_path / "nothing"], currency="CNY")
    with pytest.raises(InputError, match="no file to read"):
        open_orders([tmp_path], currency="CNY")
    with pytest.raises(InputError, match="no input"):
        open_orders([], currency="CNY")
    with pytest.raises(ConfigError, match="Mars"):
        open_orders([tmp_path], currency="CNY", time_zone="Mars")


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_parquet_that_asks_for_gigabytes_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, use_dictionary: bool
) -> None:
    monkeypatch.setattr("rfmstream.engine.files.parquet._BATCH_BYTES_MAX", 1 << 20)
    copies = 200 if use_dictionary else 5
    ids = ["x" * 100_000, *["short"] * 99] * copies
    count = len(ids)
    table = pa.table(
        {
            "customer_id": ids,
            "order_id": [f"o{at}" for at in range(count)],
            "occurred_at": ["2024-01-01"] * count,
            "amount": ["1"] * count,
        }
    )
    pq.write_table(table, tmp_path / "o.parquet", use_dictionary=use_dictionary, compression="zstd")
    sizes = []
    [file] = find_files([tmp_path / "o.parquet"], InputFormat())
    for chunk in read_chunks(file, table.column_names, first_row=0, tick=lambda _: None):
        texts = chunk.batch.column("customer_id")
        sizes.append(len(texts) * 100_000 if use_dictionary else texts.nbytes)
    assert max(sizes) <= 1 << 20
    found, rejected = orders(tmp_path / "o.parquet")
    assert (len(found), len(rejected)) == (99 * copies, copies)


def test_an_arrow_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(history(in_order=True), tmp_path / "o.arrow")
    [file] = find_files([path], InputFormat())
    chunks = read_chunks(file, ["customer_id"], first_row=0, tick=lambda _: None)
    assert next(chunks).row_count == 0
    assert next(chunks).row_count == 700
    os.truncate(path, 4096)
    with pytest.raises(InputError, match="cannot be read"):
        list(chunks)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "o.csv")
    with pytest.raises(InputError, match="is a pipe or a device, which cannot be read twice"):
        orders(tmp_path / "o.csv")


def test_a_header_alone_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("customer_id,order_id,occurred_at,amount")
    assert orders(tmp_path / "o.csv") == ([], [])
    pq.write_table(history().slice(0, 0), tmp_path / "o.parquet")
    assert orders(tmp_path / "o.parquet") == ([], [])


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".arrows"])
def test_a_file_without_rows_must_have_the_columns(tmp_path: Path, suffix: str) -> None:
    write(pa.table({"foo": pa.array([], pa.string())}), tmp_path / f"o{suffix}")
    with pytest.raises(InputError, match=r"no column customer_id.*the columns are foo"):
        orders(tmp_path / f"o{suffix}")


@pytest.mark.parametrize("suffix", [".arrow", ".arrows", ".parquet"])
def test_several_columns_of_a_name_are_refused(tmp_path: Path, suffix: str) -> None:
    table = history().slice(0, 3)
    twice = pa.Table.from_arrays([*table.columns, table.column("amount")], [*table.column_names, "amount"])
    with pytest.raises(InputError, match="there are 2 columns amount"):
        orders(write(twice, tmp_path / f"o{suffix}"))


def test_an_arrow_stream_that_is_cut_between_two_batches_is_refused(tmp_path: Path) -> None:
    path = write(history(), tmp_path / "o.arrows")
    with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
        reader.read_next_batch()
        first_end = source.tell()
    path.write_bytes(path.read_bytes()[:first_end])
    with pytest.raises(InputError, match="without its end") as caught:
        orders(path)
    assert caught.value.source == str(path)


@pytest.mark.parametrize("suffix", [".arrow", ".arrows"])
@pytest.mark.parametrize("edges", [[0, 2**30, 2], [0, -5, 2], [1, 0, 2], None])
def test_arrow_whose_offsets_or_indices_lead_astray(
    tmp_path: Path, suffix: str, edges: list[int] | None
) -> None:
    if edges is None:
        indices = pa.array([0, 2**20], pa.int32())
        column = pa.DictionaryArray.from_arrays(indices, pa.array(["c"]), safe=False)
    else:
        column = pa.StringArray.from_buffers(2, pa.py_buffer(np.array(edges, np.int32)), pa.py_buffer(b"ab"))
    table = history().slice(0, 2).set_column(1, "order_id", column)
    with pytest.raises(InputError, match="cannot be read"):
        list(open_orders([write(table, tmp_path / f"o{suffix}")], currency="CNY"))


@pytest.mark.parametrize("suffix", [".arrow", ".arrows", ".parquet"])
def test_a_column_whose_name_is_no_utf8(tmp_path: Path, suffix: str) -> None:
    path = write(history().append_column("Menge", pa.array(range(COUNT))), tmp_path / f"o{suffix}")
    path.write_bytes(path.read_bytes().replace(b"Menge", b"M\xe9nge"))
    with pytest.raises(InputError, match="cannot be read"):
        list(open_orders([path], currency="CNY"))


@pytest.mark.parametrize("suffix", [".arrow", ".arrows"])
def test_a_time_zone_whose_name_is_no_utf8(tmp_path: Path, suffix: str) -> None:
    at = history().column_names.index("occurred_at")
    times = pa.array(range(COUNT), pa.timestamp("us", "Europe/Riga"))
    path = write(history().set_column(at, "occurred_at", times), tmp_path / f"o{suffix}")
    path.write_bytes(path.read_bytes().replace(b"Europe/Riga", b"Europe/\x80iga"))
    with pytest.raises(InputError, match="cannot be read"):
        list(open_orders([path], currency="CNY"))


def test_text_that_is_no_utf8_is_the_fault_of_its_row_in_every_arrow_type(tmp_path: Path) -> None:
    raw = pa.array([b"ann", b"\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9", b"bob"])
    texts = [
        pa.Array.from_buffers(text, 3, raw.cast(same).buffers())
        for text, same in (
            (pa.string(), pa.binary()),
            (pa.large_string(), pa.large_binary()),
            (pa.string_view(), pa.binary_view()),
        )
    ]
    texts.append(pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), texts[0], safe=False))
    for number, names in enumerate(texts):
        table = pa.table({**history().slice(0, 3).to_pydict(), "customer_id": names})
        [(orders, rejected)] = open_orders([write(table, tmp_path / f"o{number}.arrow")], currency="CNY")
        assert (orders.num_rows, rejected["reason"].to_pylist()) == (2, ["malformed"])


def test_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.files.input_files.BLOCK_BYTES", 64)
    monkeypatch.setattr("rfmstream.engine.files.delimited.RECORD_BYTES_MAX", 500)
    monkeypatch.setattr("rfmstream.engine.files.jsonlines._LINE_BYTES_MAX", 500)
    head = "customer_id,order_id,occurred_at,amount\n"
    rows = "".join(f"c,{at},2024-01-01,1\n" for at in range(100))
    (tmp_path / "o.csv").write_text(head + '"stray,0,2024-01-01,1\n' + rows)
    found, rejected = orders(tmp_path / "o.csv")
    assert len(found) == 100
    assert [row["raw"] for row in rejected] == ['"stray,0,2024-01-01,1']
    (tmp_path / "o.csv").write_text(head + "x" * 2000)
    with pytest.raises(InputError, match="longer than 16 MiB"):
        orders(tmp_path / "o.csv")
    (tmp_path / "o.jsonl").write_text('{"a": "' + "x" * 2000)
    with pytest.raises(InputError, match="longer than 16 MiB"):
        orders(tmp_path / "o.jsonl")


def test_naive_times_take_the_zone_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("customer_id,order_id,occurred_at,amount\nc,o,2024-07-01T00:00:00,1\n")
    ((order, *_),), _ = orders(tmp_path / "o.csv", time_zone="Europe/London")
    assert order[0].startswith("2024-06-30 23:00")


def test_null_ids_are_absent_in_text_and_words_elsewhere(tmp_path: Path) -> None:
    table = pa.table(
        {
            "customer_id": ["NULL", "nan", " ann ", "\u00a0bob\u3000", "1.23E+15", "1.23e+15", "17850.0"],
            "order_id": [f"o{at}" for at in range(7)],
            "occurred_at": ["2024-01-01T00:00:00Z"] * 7,
            "amount": ["1"] * 7,
        }
    )
    ids, reasons = {}, {}
    for suffix in (".csv", ".jsonl", ".json", ".parquet", ".arrow"):
        found, rejected = orders(write(table, tmp_path / f"o{suffix}"))
        ids[suffix] = [row[1] for row in found]
        reasons[suffix] = [(row["row"], row["reason"]) for row in rejected]
    assert ids.pop(".csv") == ["ann", "bob", "1.23e+15", "17850.0"]
    assert reasons.pop(".csv") == [
        (0, "missing_customer_id"),
        (1, "missing_customer_id"),
        (4, "rounded_id"),
    ]
    as_they_are = ["NULL", "nan", " ann ", "\u00a0bob\u3000", "1.23e+15", "17850.0"]
    assert all(found == as_they_are for found in ids.values())
    assert all(found == [(4, "rounded_id")] for found in reasons.values())


@pytest.mark.parametrize("id_", ["1.5E+3", "00.0E+0", "1234567890.123E+123"])
@pytest.mark.parametrize("column", ["customer_id", "order_id", "event_id"])
def test_an_id_that_a_spreadsheet_has_rounded_is_rejected(tmp_path: Path, column: str, id_: str) -> None:
    row = {"customer_id": "c", "order_id": "o", "occurred_at": "2024-01-01T00:00:00Z", "amount": "1"}
    near = [id_.lower(), id_[:-1] + "x", "x" + id_, id_.replace("+", "-"), id_.replace(".", ""), f"-{id_}"]
    rows = [{**row, column: text} for text in (id_, *near)]
    path = tmp_path / "o.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    found, rejected = orders(path)
    assert [(row["row"], row["reason"]) for row in rejected] == [(0, "rounded_id")]
    assert len(found) == len(near)


def test_nested_and_flat_json_paths(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl").write_text('{"a": {"b": 1.10}}\n{"a.b": "2"}\n{"a": 3}\n{}\n')
    (file,) = find_files([tmp_path / "o.jsonl"], InputFormat())
    (chunk,) = read_json_lines(file, ["a.b"], first_row=0, tick=lambda _: None)
    assert chunk.batch.to_pydict() == {"a.b": ["1.10", "2", None, None]}
