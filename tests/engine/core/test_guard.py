"""An engine in the hands of a program: interrupts, threads, forks, damaged tables, memory that somebody holds."""

import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from kernel_shards import event
from oracle_days import DAY_US
from twins import canonical_batch, plain_rows

from rfmstream import Engine, InputError, StateError
from rfmstream.engine.core.columns import ColumnWriter
from rfmstream.engine.core.shard import Shard


def orders(size: int, first: int = 0) -> pa.RecordBatch:
    return canonical_batch(
        [event(f"c{i % 97}", f"o{i}", i * DAY_US // 50, 1_000) for i in range(first, first + size)]
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", [(Shard, "fold"), (Shard, "advance"), (ColumnWriter, "changes")])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_after_a_step_that_was_broken_off_the_engine_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    place: tuple[type, str],
    error: BaseException,
) -> None:
    engine = Engine("rfm8", threads=threads)
    engine.step_canonical(orders(300))
    engine.checkpoint(tmp_path)
    owner, name = place
    whole = getattr(owner, name)

    def broken(*args: object, **options: object) -> object:
        whole(*args, **options)
        raise error

    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(type(error)):
        engine.step_canonical(orders(300, 5000))
    monkeypatch.undo()
    for use in (
        lambda: engine.step_canonical(orders(300, 5000)),
        lambda: engine.step_log(orders(300, 5000)),
        lambda: engine.step(pa.table({})),
        lambda: engine.advance(10**15),
        engine.snapshot,
        engine.frozen,
        lambda: engine.next_due_us(10**15),
        lambda: engine.resegment(engine.ruleset),
        lambda: engine.checkpoint(tmp_path),
    ):
        with pytest.raises(StateError, match="restore it"):
            use()
    restored = Engine.restore(tmp_path)
    restored.step_canonical(orders(300, 5000))
    straight = Engine("rfm8")
    straight.step_canonical(orders(300))
    straight.step_canonical(orders(300, 5000))
    assert restored.snapshot().sort_by("customer_id").equals(straight.snapshot().sort_by("customer_id"))


def test_what_is_refused_before_anything_changes_breaks_nothing() -> None:
    engine = Engine("rfm8")
    with pytest.raises(InputError):
        engine.step(pa.table({"nothing": [1]}))
    engine.step_canonical(orders(10))
    assert engine.counters.applied == 10


def test_threads_take_turns() -> None:
    engine, straight = Engine("rfm8", threads=2), Engine("rfm8")
    parts = [orders(500, 500 * n) for n in range(16)]
    failed: list[BaseException] = []

    def work(mine: list[pa.RecordBatch]) -> None:
        try:
            for part in mine:
                engine.step_canonical(part)
                assert engine.snapshot().num_rows == 97
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failed.append(error)

    workers = [threading.Thread(target=work, args=(parts[n::4],)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []
    for part in parts:
        straight.step_canonical(part)
    assert engine.counters.applied == straight.counters.applied == 8000
    end = 10**15
    engine.advance(end)
    straight.advance(end)
    mine, other = (
        [
            (row["customer_id"], row["lifetime_orders"], row["monetary_minor"], row["tier"])
            for row in plain_rows(table)
        ]
        for table in (engine.snapshot().sort_by("customer_id"), straight.snapshot().sort_by("customer_id"))
    )
    assert mine == other


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own() -> None:
    engine = Engine("rfm8", threads=2)
    engine.step_canonical(orders(300))
    child = os.fork()
    if child == 0:
        engine.step_canonical(orders(300, 300))
        os._exit(0 if engine.counters.applied == 600 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_who_keeps_the_error_of_a_checkpoint_takes_nothing_from_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, straight = Engine("rfm8"), Engine("rfm8")
    kept = []
    for n in range(6):
        engine.step_canonical(orders(4000, 4000 * n))
        straight.step_canonical(orders(4000, 4000 * n))
        with monkeypatch.context() as patched:
            patched.setattr(
                os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
            )
            with pytest.raises(StateError) as error:
                engine.checkpoint(tmp_path / "c")
        # An exception holds the frames it went through, and they hold views of the records.
        kept += [error.value, engine.shards[0].entry_records(), engine.shards[0].customer_records()]
    assert engine.snapshot().equals(straight.snapshot())
    engine.checkpoint(tmp_path / "c")
    assert Engine.restore(tmp_path / "c").snapshot().equals(straight.snapshot())
    assert len(kept) == 18


def damaged_offsets() -> pa.Array:
    offsets = pa.array([0, 1, 2**31 - 1, 3], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])


def test_a_table_whose_offsets_lead_astray_is_refused() -> None:
    engine = Engine("rfm8")
    good = {"order_id": ["1", "2", "3"], "occurred_at": ["2026-01-01"] * 3, "amount": ["1"] * 3}
    indices = pa.array([0, 1, 7], pa.int32())
    astray = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b"]), safe=False)
    for column in (damaged_offsets(), astray):
        with pytest.raises(InputError, match="the table is damaged"):
            engine.step(pa.table({"customer_id": column, **good}))
    engine.step(pa.table({"customer_id": ["a", "b", "c"], **good}))
    assert engine.customers == 3


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("wrapped", ["plain", "dictionary", "runs", "chunks"])
def test_every_type_of_text_is_read(text: pa.DataType, wrapped: str) -> None:
    ids = ["ann", "ann", None, "a customer of more than twelve bytes", "bob"]
    column: pa.Array | pa.ChunkedArray = pa.array(ids, pa.string()).cast(text)
    codes = pa.array([0, 0, None, 1, 2], pa.uint32())
    values = pa.array(["ann", "a customer of more than twelve bytes", "bob"]).cast(text)
    if wrapped == "dictionary":
        column = pa.DictionaryArray.from_arrays(codes, values)
    elif wrapped == "runs":
        runs = pa.array(["ann", None, "a customer of more than twelve bytes", "bob"]).cast(text)
        column = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 4, 5], pa.int32()), runs)
    elif wrapped == "chunks":
        other = pa.array(["bob", "ann"]).cast(text)
        column = pa.chunked_array(
            [
                pa.DictionaryArray.from_arrays(pa.array([1, 1, None], pa.uint32()), other),
                pa.DictionaryArray.from_arrays(pa.array([1, 2], pa.uint32()), values),
            ]
        )
    table = pa.table(
        {
            "customer_id": column,
            "order_id": [str(n) for n in range(5)],
            "occurred_at": ["2026-01-01"] * 5,
            "amount": ["1"] * 5,
        }
    )
    result = Engine("rfm8").step(table)
    assert result.changes["customer_id"].to_pylist() == ["ann", "a customer of more than twelve bytes", "bob"]
    assert [(row["row"], row["reason"]) for row in plain_rows(result.rejected)] == [
        (2, "missing_customer_id")
    ]


def test_what_a_null_view_shows_is_not_followed() -> None:
    good = pa.array(["e1", None], pa.string_view())
    words = bytearray(good.buffers()[1].to_pybytes()[:32])
    words[16:20] = (-(2**31)).to_bytes(4, "little", signed=True)
    column = pa.Array.from_buffers(pa.string_view(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(bytes(words))])
    table = pa.table(
        {
            "customer_id": ["a", "b"],
            "order_id": ["1", "2"],
            "occurred_at": ["2026-01-01"] * 2,
            "amount": ["1"] * 2,
            "event_id": column,
        }
    )
    engine = Engine("rfm8")
    engine.step(table)
    assert engine.customers == 2


def test_a_column_that_is_no_text_is_refused_by_name() -> None:
    interval = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    good = {"customer_id": ["a"], "order_id": ["1"], "occurred_at": ["2026-01-01"], "amount": ["1"]}
    for name in ("customer_id", "order_id", "occurred_at", "event_id"):
        with pytest.raises(InputError, match=f"column {name} is month_day_nano_interval"):
            Engine("rfm8").step(pa.table({**good, name: interval}))
