"""--rates: amounts in other currencies, against exact fractions."""

from fractions import Fraction
from pathlib import Path

import pytest

from rfmstream import Engine
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.rates import converted, load_rates
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.replay.replay import replay
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.ruleset import load_ruleset

HEAD = "customer_id,order_id,occurred_at,amount,currency,type\n"
RATES = "date,currency,rate\n2024-01-01,EUR,1.105\n2024-01-02,EUR,1.2\n2024-01-01,JPY,0.0071\n2024-01-02,KWD,3.25\n"


def run(
    tmp_path: Path, rows: str, *, currency: str = "USD", zone: str = "UTC", rates: str = RATES
) -> tuple[list[tuple], list[tuple]]:
    (tmp_path / "rates.csv").write_text(rates)
    (tmp_path / "orders.csv").write_text(HEAD + rows)
    table = load_rates(tmp_path / "rates.csv", currency=currency, time_zone=zone)
    stream = open_orders([tmp_path / "orders.csv"], currency=currency, rates=table)
    good, bad = [], []
    for orders, rejected in stream:
        orders.validate(full=True)
        good += [(row["row"], row["amount_minor"]) for row in orders.to_pylist()]
        bad += [(row["row"], row["reason"], row["amount"], row["currency"]) for row in rejected.to_pylist()]
    return good, bad


@pytest.mark.parametrize("minor", [0, 1, 5, 15, 25, 35, 45, 10**12, -5, -15, -25])
@pytest.mark.parametrize("ratio", [(1, 10), (1105, 1000), (7, 3), (1, 1)])
def test_half_to_even(minor: int, ratio: tuple[int, int]) -> None:
    assert converted(minor, ratio) == round(Fraction(minor) * Fraction(*ratio))


def test_amounts_at_the_rate_of_their_local_day(tmp_path: Path) -> None:
    rows = (
        "a,1,2024-01-01T10:00:00Z,100.00,EUR,paid\n"
        "a,2,2024-01-01T23:30:00Z,100.00,EUR,paid\n"
        "a,3,2024-01-01T10:00:00Z,1000,JPY,paid\n"
        "a,4,2024-01-02T10:00:00Z,1.001,KWD,paid\n"
        "a,5,2024-01-02T10:00:00Z,7.00,USD,paid\n"
        "a,6,2024-01-02T10:00:00Z,7.00,,paid\n"
        "a,,2024-01-02T11:00:00Z,7.00,EUR,paid\n"
        "a,8,2024-01-02T11:00:00Z,-7.00,EUR,adjusted\n"
    )
    good, bad = run(tmp_path, rows, zone="Europe/Paris")
    assert sorted(good) == [(0, 11050), (1, 12000), (2, 710), (3, 325), (4, 700), (5, 700), (7, -840)]
    assert bad == [(6, "missing_order_id", "7.00", "EUR")]
    assert sorted(run(tmp_path, rows)[0])[1] == (1, 11050)


def test_a_missing_rate_is_rejected_and_never_one_to_one(tmp_path: Path) -> None:
    good, bad = run(
        tmp_path,
        "a,1,2024-01-03T10:00:00Z,5.00,EUR,paid\n"
        "a,1,2024-01-04T10:00:00Z,5.00,EUR,refunded\n"
        "a,2,2024-01-01T10:00:00Z,5.00,CHF,paid\n"
        "a,3,2024-01-01T10:00:00Z,5.00,XYZ,paid\n"
        "a,4,2024-01-01T10:00:00Z,5.00,EUR,refunded\n"
        "a,5,2024-01-01T10:00:00Z,,EUR,cancelled\n",
    )
    assert good == [(5, 0)]
    assert sorted(bad) == [
        (0, "no_rate", "5.00", "EUR"),
        (1, "no_rate", "5.00", "EUR"),
        (2, "no_rate", "5.00", "CHF"),
        (3, "currency_mismatch", "5.00", "XYZ"),
        (4, "no_rate", "5.00", "EUR"),
    ]


@pytest.mark.parametrize("newest_first", [False, True])
def test_refunds_at_their_orders_rate_leave_nothing(tmp_path: Path, newest_first: bool) -> None:  # noqa: FBT001
    rows = [
        "a,1,2024-01-01T10:00:00Z,100.01,EUR,paid\n",
        "a,1,2024-01-02T10:00:00Z,33.33,EUR,refunded\n",
        "a,1,2024-06-01T10:00:00Z,33.33,EUR,refunded\n",
        "a,1,2024-06-01T10:00:00Z,33.33,EUR,refunded\n",
        "a,1,2024-07-01T10:00:00Z,33.35,EUR,refunded\n",
        "b,1,2024-01-01T10:00:00Z,10.05,EUR,paid\n",
        "b,1,2024-03-01T10:00:00Z,3.35,EUR,refunded_total\n",
        "b,1,2024-05-01T10:00:00Z,10.05,EUR,refunded_total\n",
    ]
    (tmp_path / "rates.csv").write_text(RATES)
    (tmp_path / "orders.csv").write_text(HEAD + "".join(reversed(rows) if newest_first else rows))
    engine = Engine(load_ruleset("rfm8", currency="USD"))
    table = load_rates(tmp_path / "rates.csv", currency="USD", time_zone="UTC")
    replay(engine, [tmp_path / "orders.csv"], rates=table)
    assert (engine.counters.rejected, engine.counters.duplicates) == ({}, 1)
    assert (
        engine.snapshot().select(["lifetime_monetary_minor", "lifetime_orders"]).to_pylist()
        == [{"lifetime_monetary_minor": 0, "lifetime_orders": 0}] * 2
    )


def test_lines_are_summed_in_their_currency_and_converted_once(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(
        'name = "m"\n[lines]\n[[event]]\ncustomer_id = "c"\norder_id = "o"\noccurred_at = "t"\namount = "a"\n'
        'currency = "k"\n'
    )
    (tmp_path / "lines.csv").write_text(
        "c,o,t,a,k\nx,1,2024-01-01,0.03,EUR\nx,1,2024-01-01,0.03,EUR\nx,2,2024-01-01,0.03,USD\nx,3,2024-01-03,1,EUR\n"
    )
    (tmp_path / "rates.csv").write_text(RATES)
    stream = open_orders(
        [tmp_path / "lines.csv"],
        input_map=load_map(tmp_path / "map.toml"),
        currency="USD",
        rates=load_rates(tmp_path / "rates.csv", currency="USD", time_zone="UTC"),
    )
    batches = list(stream)
    assert [
        (row["order_id"], row["amount_minor"]) for orders, _ in batches for row in orders.to_pylist()
    ] == [("1", 7), ("2", 3)]
    assert [(row["row"], row["reason"]) for _, bad in batches for row in bad.to_pylist()] == [(3, "no_rate")]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("2024-01-01,EUR,0\n", "row 0: '0' is no rate"),
        ('2024-01-01,EUR,"1,1"\n', "'1,1' is no rate"),
        ("2024-01-01,EUR,-1\n", "'-1' is no rate"),
        ("2024-01-01,Euro,1.1\n", "'Euro' is no ISO 4217 currency"),
        ("01.02.2024,EUR,1.1\n", "'01.02.2024' is no date; write 2024-03-31"),
        ("2024-02-30,EUR,1.1\n", "'2024-02-30' is no date"),
        ("2024-01-01,EUR,1.1\n2024-01-01,EUR,1.2\n", "row 1: EUR has two rates on 2024-01-01"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("date,currency,rate\n" + rows)
    with pytest.raises(InputError, match=words):
        load_rates(path, currency="USD", time_zone="UTC")


def test_an_order_of_an_earlier_run_lends_its_rate_where_it_comes_again(tmp_path: Path) -> None:
    """A refund in a later run is exact if the order, and what was refunded before, stands beside it."""
    paid = "a,1,2024-01-01T10:00:00Z,100.01,EUR,paid\n"
    first = "a,1,2024-01-02T10:00:00Z,33.33,EUR,refunded\n"
    rest = "a,1,2024-06-01T10:00:00Z,66.68,EUR,refunded\n"
    (tmp_path / "rates.csv").write_text(RATES)
    table = load_rates(tmp_path / "rates.csv", currency="USD", time_zone="UTC")
    engine = Engine(load_ruleset("rfm8", currency="USD"))
    for name, rows in (("monday", paid + first), ("alone", rest), ("together", paid + first + rest)):
        (tmp_path / f"{name}.csv").write_text(HEAD + rows)
        replay(engine, [tmp_path / f"{name}.csv"], rates=table)
        if name == "alone":
            assert engine.counters.rejected == {"no_rate": 1}
    assert (engine.counters.rejected, engine.counters.duplicates) == ({"no_rate": 1}, 2)
    assert engine.snapshot()["lifetime_monetary_minor"].to_pylist() == [0]
