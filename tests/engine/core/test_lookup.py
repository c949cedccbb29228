import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.lookup import Found, rows_of
from rfmstream.engine.core.views import Views
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.ruleset import load_ruleset

IDS = [f"{'long-' * 9 if at % 7 == 0 else 'c'}{at}" for at in range(500)]


@pytest.fixture(params=[1, 3])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine = Engine("rfm8", threads=request.param)
    at = [f"2026-01-{1 + at % 28:02d}T10:00:00Z" for at in range(1000)]
    engine.step(
        pa.table(
            {
                "customer_id": [IDS[at % 500] for at in range(1000)],
                "order_id": [f"o{at}" for at in range(1000)],
                "occurred_at": at,
                "amount": [f"{at}.50" for at in range(1000)],
            }
        )
    )
    return engine


@pytest.mark.parametrize("later_days", [None, 0, 40])
def test_rows_are_the_snapshot_s(engine: Engine, later_days: int | None) -> None:
    as_of_us = None if later_days is None else engine.clock_us + later_days * 86_400_000_000
    whole = engine.snapshot(as_of_us)
    ids = [*IDS[3:400:7], *IDS[0:30], "nobody", "", IDS[3]]
    found = rows_of(engine, ids, as_of_us)
    expected = whole.filter(pc.is_in(whole["customer_id"], pa.array(ids)))
    assert found.num_rows == len(set(ids)) - 2
    assert found.schema.equals(whole.schema)
    assert found.sort_by("customer_id").to_pylist() == expected.sort_by("customer_id").to_pylist()


def test_nothing_is_changed_by_it(engine: Engine) -> None:
    before = engine.snapshot().to_pylist()
    rows_of(engine, IDS, engine.clock_us + 10**13)
    assert rows_of(engine, []).num_rows == 0
    assert engine.snapshot().to_pylist() == before


def test_an_erased_customer_is_not_there(engine: Engine) -> None:
    erasure = {"customer_id": [IDS[5]], "order_id": ["e"], "type": ["erased"]}
    erasure |= {"occurred_at": ["2026-02-01T00:00:00Z"], "amount": ["0"]}
    engine.step(pa.table(erasure))
    assert rows_of(engine, [IDS[5], IDS[6]])["customer_id"].to_pylist() == [IDS[6]]


def test_an_instant_before_the_clock_is_refused(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="before the clock"):
        rows_of(engine, IDS, engine.clock_us - 1)


def orders(ids: list[str], **columns: list[str]) -> pa.Table:
    at = range(len(ids))
    return pa.table(
        {
            "customer_id": ids,
            "order_id": [f"o{number}" for number in at],
            "occurred_at": [f"2026-01-{1 + number % 28:02d}T10:00:00Z" for number in at],
            "amount": [f"{number}.50" for number in at],
            **columns,
        }
    )


def test_several_engines_are_looked_in_one_after_another() -> None:
    # Rows end within a byte of a bitmap; some customers are in two engines, and one engine has none.
    engines = [Engine("rfm8", threads=threads) for threads in (1, 2, 1, 3)]
    for number, engine in enumerate(engines):
        engine.step(orders([IDS[at] for at in range(3 * number, 3 * number + 11)] if number != 2 else ["x"]))
    as_of_us = max(engine.clock_us for engine in engines) + 40 * 86_400_000_000
    ids = IDS[1:15]
    found = Found(ids)
    for engine in engines:
        found.look_in(engine, as_of_us)
    apart = pa.concat_tables([rows_of(engine, ids, as_of_us) for engine in engines])
    assert found.rows == apart.num_rows > len(ids)
    assert found.table().combine_chunks().equals(apart.combine_chunks())
    assert found.customer_ids() == apart["customer_id"].to_pylist()
    assert {instant for _, instant in found.as_of_us} == {as_of_us}


@pytest.mark.parametrize("later_days", [0, 40])
def test_plain_rows_are_those_of_the_table(engine: Engine, later_days: int) -> None:
    engine.step(
        pa.table(
            {
                "customer_id": ["adjusted"],
                "order_id": ["a"],
                "type": ["adjusted"],
                "occurred_at": ["2026-01-05"],
                "amount": ["-3.00"],
            }
        )
    )
    found = Found([*IDS[:40], "adjusted", "nobody"])
    found.look_in(engine, engine.clock_us + later_days * 86_400_000_000)
    table = found.table()
    for at, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(at, field.name, table[field.name].cast(pa.int64()))
    assert found.plain() == table.to_pylist()
    assert list(found.plain()[0]) == table.schema.names
    assert Found(["nobody"]).plain() == []


def test_who_is_looked_for_in_populations_leaves_no_trace() -> None:
    plan = Plan((View("store", load_ruleset("rfm8"), per="store"),))
    views = Views(plan)
    long = "l" * 256
    views.step(orders([long, "ann", "ann"], store=["hk", "hk", "tw"]))
    engine = views.views["store"].engine
    kept = engine.memory
    assert rows_of(engine, [long, "x" * 256, "y" * 5_000, "ann"])["population"].to_pylist() == [
        "hk",
        "hk",
        "tw",
    ]
    assert rows_of(engine, [long], population="tw").num_rows == 0
    assert engine.memory == kept
    found = Found([long, "ann"])
    found.look_in(engine)
    rows = [(row["population"], row["customer_id"]) for row in found.plain()]
    assert rows == [("hk", long), ("hk", "ann"), ("tw", "ann")]
