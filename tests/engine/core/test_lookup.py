import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.lookup import rows_of
from rfmstream.schemas.errors import ConfigError

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
