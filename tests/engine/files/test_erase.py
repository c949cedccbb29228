import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from rfmstream import Engine
from rfmstream.engine.cli.app import cli
from rfmstream.engine.files.erase import erase_customers, files_below, read_ids
from rfmstream.engine.files.output import write_table
from rfmstream.schemas.errors import ConfigError, InputError

GONE = "forget-me"
ODD = 'o"d,d\nid'


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="rfmstream")


def little_orders() -> pa.Table:
    ids = [GONE, "stays", "stays-too", GONE, ODD, "00042"]
    return pa.table(
        {
            "customer_id": ids,
            "order_id": [f"order of {id_} {at}" for at, id_ in enumerate(ids)],
            "occurred_at": [f"2026-01-0{1 + at}T10:00:00Z" for at in range(len(ids))],
            "amount": ["600.00"] * len(ids),
        }
    )


def bytes_below(*paths: Path) -> bytes:
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    ]
    return b"".join(file.read_bytes() for file in files)


def rows(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        texts = pa.csv.ConvertOptions(column_types={"customer_id": pa.string(), "seq": pa.int64()})
        return pa.csv.read_csv(  # type: ignore[no-any-return]
            path, convert_options=texts, parse_options=pa.csv.ParseOptions(newlines_in_values=True)
        ).to_pylist()
    if path.suffix == ".arrow":
        with pa.ipc.open_file(path) as reader:
            return reader.read_all().to_pylist()  # type: ignore[no-any-return]
    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_the_rows_go_and_all_others_stay(suffix: str, tmp_path: Path) -> None:
    changes = Engine("rfm8").step(little_orders()).changes
    path = tmp_path / f"changes{suffix}"
    write_table(path, changes)
    before = rows(path)
    assert GONE.encode() in path.read_bytes()
    assert erase_customers(path, pa.array([GONE, "nobody"])) == 2
    kept = [row for row in before if row["customer_id"] != GONE]
    assert rows(path) == kept
    assert GONE.encode() not in path.read_bytes()
    again = path.read_bytes()
    assert erase_customers(path, pa.array([GONE])) == 0
    assert path.read_bytes() == again
    assert erase_customers(path, pa.array([ODD])) == 1
    assert rows(path) == [row for row in kept if row["customer_id"] != ODD]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_other_lines_keep_their_bytes(suffix: str, tmp_path: Path) -> None:
    text = {
        ".csv": '\ufeffwhen;x,customer_id\r\n1.50,"00042"\r\n"a ""b"", c\nd",forget-me\r\n,"forget-me"\r\n x ,y',
        ".jsonl": '{"customer_id":"00042", "n": 1.50}\n{"n":1,"customer_id":"forget-me"}\n\n{"customer_id":null}',
    }[suffix]
    path = tmp_path / f"found{suffix}"
    path.write_bytes(text.encode())
    lost = {
        ".csv": '"a ""b"", c\nd",forget-me\r\n,"forget-me"\r\n',
        ".jsonl": '{"n":1,"customer_id":"forget-me"}\n',
    }[suffix]
    assert erase_customers(path, pa.array([GONE])) == len(lost.split("forget-me")) - 1
    assert path.read_bytes().decode() == text.replace(lost, "")


def test_many_rows_in_many_row_groups(tmp_path: Path) -> None:
    random.seed(7)
    ids = [f"c{random.randrange(50)}" for _ in range(5_000)]  # noqa: S311 - a test's own
    table = pa.table({"customer_id": pa.array(ids).dictionary_encode(), "n": range(5_000)})
    path = tmp_path / "groups.parquet"
    pq.write_table(table.replace_schema_metadata({"own": "note"}), path, row_group_size=700)
    gone = [f"c{n}" for n in range(0, 50, 2)]
    assert erase_customers(path, pa.array(gone)) == sum(id_ in gone for id_ in ids)
    left = pq.read_table(path)
    assert left.schema.metadata[b"own"] == b"note"
    assert left["n"].to_pylist() == [n for n, id_ in enumerate(ids) if id_ not in gone]
    arrow = tmp_path / "groups.arrow"
    write_table(arrow, table)
    assert erase_customers(arrow, pa.array(["c1"])) == ids.count("c1")
    with pa.ipc.open_file(arrow) as reader:
        assert "c1" not in {
            word for batch in reader.read_all()["customer_id"].chunks for word in batch.dictionary.to_pylist()
        }


def test_ids_of_a_table_and_of_lines(tmp_path: Path) -> None:
    lines = tmp_path / "ids.txt"
    lines.write_text("\ufeff00042\n\n forget-me \r\n00042\n")
    assert read_ids(lines).to_pylist() == ["00042", GONE]
    table = tmp_path / "ids.csv"
    table.write_text("name,customer_id\nx,00042\ny,42\n")
    assert read_ids(table).to_pylist() == ["00042", "42"]
    for name, text, words in (
        ("empty.txt", "\n", "holds no customer id"),
        ("other.csv", "id\n1\n", "has no column customer_id"),
        ("none.txt", None, "cannot be read|no such file"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=words):
            read_ids(tmp_path / name)


def test_files_that_cannot_be_written_anew(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(GONE)
    with pytest.raises(ConfigError, match="cannot be written anew"):
        files_below((tmp_path / "notes.txt",))
    with pytest.raises(InputError, match="there is no such file"):
        files_below((tmp_path / "none.csv",))
    for name, data in (
        ("a.csv", b"id\n1\n"),
        ("b.jsonl", b"{}\n"),
        ("c.jsonl", b"{\n"),
        ("d.parquet", b"PAR1"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError):
            erase_customers(tmp_path / name, pa.array([GONE]))
        assert (tmp_path / name).read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 5


@pytest.fixture
def place(tmp_path: Path) -> Path:
    orders = tmp_path / "orders.parquet"
    write_table(orders, little_orders())
    options = ("--changes", tmp_path / "changes.csv", "--snapshot", tmp_path / "tiers.arrow")
    assert run("replay", orders, "--checkpoint", tmp_path / "state", *options).exit_code == 0
    (tmp_path / "ids.txt").write_text(f"{GONE}\nnobody\n")
    return tmp_path


def test_nothing_of_the_customer_is_left_anywhere_but_the_id_and_its_count(place: Path) -> None:
    told = place / "told.jsonl"
    files = (place / "orders.parquet", place / "changes.csv", place / "tiers.arrow")
    result = run(
        *("erase", "--ids", place / "ids.txt", "--checkpoint", place / "state", "--changes", told),
        *(word for path in files for word in ("--files", path)),
    )
    assert result.exit_code == 0, result.output
    assert "1 customers forgotten, 1 tier changes to null" in result.output
    assert "2 rows erased" in result.output
    # The orders' ids hold the customer's, so both are looked for.
    assert b"order of forget-me" not in bytes_below(place / "state", *files)
    assert GONE.encode() not in bytes_below(*files)
    (change,) = rows(told)
    assert (change["customer_id"], change["seq"], change["to_tier"], change["reason"]) == (
        GONE,
        3,
        None,
        "erased",
    )
    assert GONE not in Engine.restore(place / "state").snapshot()["customer_id"].to_pylist()


def test_the_state_goes_on_as_if_that_customer_had_never_been(place: Path) -> None:
    assert run("erase", "--ids", place / "ids.txt", "--checkpoint", place / "state").exit_code == 0
    erased = Engine.restore(place / "state")
    orders = little_orders()
    clean = Engine("rfm8")
    clean.step(orders.filter(pa.compute.not_equal(orders["customer_id"], GONE)))
    assert erased.clock_us == clean.clock_us
    more = pa.table(
        {
            "customer_id": [GONE, "stays"],
            "order_id": ["new", "new"],
            "occurred_at": ["2026-02-08T10:00:00Z", "2026-02-08T11:00:00Z"],
            "amount": ["600.00", "600.00"],
        }
    )
    tables = [engine.step(more).changes.to_pylist() for engine in (erased, clean)]
    for change in (*tables[0], *tables[1]):
        if change["customer_id"] == GONE:
            change["seq"] = None
    assert sorted(map(str, tables[0])) == sorted(map(str, tables[1]))
    assert "first_order" in str(tables[0])


def test_twice_is_once(place: Path) -> None:
    arguments = ("erase", "--ids", place / "ids.txt", "--checkpoint", place / "state", "--files", place)
    assert run(*arguments).exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "0 customers forgotten, 0 tier changes" in result.output
    assert "rows erased" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "name at least one of --topic, --checkpoint and --files"),
        (("--files", "orders.parquet", "--changes", "x.csv"), 2, "--changes belongs to --checkpoint"),
        (("--files", "none.csv"), 3, "there is no such file"),
        (("--checkpoint", "none"), 4, "no checkpoint"),
        (("--checkpoint", "state", "--ruleset", "scores4"), 4, "belongs to ruleset rfm8"),
        (
            ("--checkpoint", "state", "--changes", "orders.parquet", "--files", "orders.parquet"),
            2,
            "would overwrite",
        ),
    ],
)
def test_what_is_refused(
    place: Path, arguments: tuple[str, ...], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = bytes_below(place)
    result = run("erase", "--ids", "ids.txt", *arguments)
    assert (result.exit_code, words in result.output) == (code, True), result.output
    assert bytes_below(place) == before
