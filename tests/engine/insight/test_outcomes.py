import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from real_changes import complete_journey_changes, complete_journey_orders
from twins import canonical_batch

from rfmstream.engine.cli.app import cli
from rfmstream.engine.files.output import write_table
from rfmstream.engine.insight.intervals import newcombe
from rfmstream.engine.insight.outcomes import CONTACT_FIELDS, Arm, Window
from rfmstream.engine.insight.purchases import Purchases

DAY_US = 86_400_000_000
NO_ONE = Arm(0, 0, 0, 0, 0)


def table(rows: Sequence[dict[str, Any]], **types: pa.DataType) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for name, kind in types.items():
        values = [row.get(name) for row in rows]
        is_time = pa.types.is_timestamp(kind)
        columns[name] = pa.array(values, pa.int64()).cast(kind) if is_time else pa.array(values, kind)
    return pa.table(columns)


INSTANT = pa.timestamp("us", "UTC")


def sql(query: str, **tables: pa.Table) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for name, rows in tables.items():
            connection.register(name, rows)
        return connection.execute(query).fetchall()


def changes_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return table(
        rows,
        customer_id=pa.string(),
        seq=pa.int64(),
        effective_at=INSTANT,
        from_tier=pa.string(),
        to_tier=pa.string(),
        view=pa.string(),
        population=pa.string(),
        holdout=pa.bool_(),
    )


def signals_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return table(
        rows,
        customer_id=pa.string(),
        kind=pa.string(),
        effective_at=INSTANT,
        tier=pa.string(),
        view=pa.string(),
        holdout=pa.bool_(),
    )


def contacts_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return table(
        rows,
        customer_id=pa.string(),
        campaign=pa.string(),
        contacted_at=INSTANT,
        responded_at=INSTANT,
    )


def order(customer: str, number: int, at_us: int, amount: int) -> dict[str, Any]:
    return {
        "customer_id": customer,
        "order_id": str(number),
        "type": "paid",
        "occurred_at_us": at_us,
        "amount_minor": amount,
        "event_id": None,
    }


MOMENT = st.integers(0, 20)
ORDERS = st.lists(st.tuples(st.sampled_from("abcd"), MOMENT, st.integers(0, 9)), min_size=1, max_size=30)
CHANGES = st.lists(
    st.tuples(st.sampled_from("abcde"), MOMENT, st.sampled_from(["1", "0", None]), st.booleans()), max_size=30
)


@settings(deadline=None)
@given(ORDERS, CHANGES, st.integers(1, 8), st.booleans())
def test_as_an_as_of_join_counts(
    orders: list[tuple[str, int, int]],
    entries: list[tuple[str, int, str | None, bool]],
    within: int,
    keep_open: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    made = [order(customer, at, at_us, amount) for at, (customer, at_us, amount) in enumerate(orders)]
    changes = changes_of(
        [
            {
                "customer_id": customer,
                "seq": seq,
                "effective_at": at_us,
                "to_tier": tier,
                "holdout": customer in "bd",
            }
            for seq, (customer, at_us, tier, _) in enumerate(entries)
        ]
    )
    purchases = Purchases.of([canonical_batch(sorted(made, key=lambda row: row["occurred_at_us"]))])
    window = Window(purchases, within, is_open_kept=keep_open)
    found = {row.tier: (row.treated, row.held) for row in window.of_changes(changes)}
    bought = table(
        [{"customer_id": c, "at": t, "amount": m} for c, t, m in orders],
        customer_id=pa.string(),
        at=pa.int64(),
        amount=pa.int64(),
    )
    entered = changes.set_column(2, "effective_at", changes["effective_at"].cast(pa.int64()))
    until = max(at_us for _, at_us, _ in orders)
    query = f"""
        WITH entry AS (
            SELECT *, row_number() OVER (PARTITION BY to_tier, customer_id ORDER BY effective_at) = 1 AS is_first
            FROM entered WHERE to_tier IS NOT NULL AND ({keep_open} OR effective_at + {within} <= {until})),
        answered AS (
            SELECT entry.*, coalesce(bought.at <= effective_at + {within}, false) AS is_answered,
                (SELECT coalesce(sum(amount), 0) FROM bought AS any_order
                 WHERE any_order.customer_id = entry.customer_id AND any_order.at > effective_at
                   AND any_order.at <= effective_at + {within}) AS revenue
            FROM entry ASOF LEFT JOIN bought
              ON entry.customer_id = bought.customer_id AND entry.effective_at < bought.at)
        SELECT to_tier, holdout, count(*), count(*) FILTER (is_answered),
            count(*) FILTER (is_first), count(*) FILTER (is_first AND is_answered),
            coalesce(sum(revenue) FILTER (is_first), 0)
        FROM answered GROUP BY ALL"""  # noqa: S608 - numbers of ours
    rows = sql(query, bought=bought, entered=entered)
    expected: dict[str, list[Arm]] = {}
    for tier, held, *counts in rows:
        expected.setdefault(tier, [NO_ONE, NO_ONE])[int(held)] = Arm(*map(int, counts))
    assert found == {tier: tuple(arms) for tier, arms in expected.items()}
    counted = sum(arm.entries for arms in found.values() for arm in arms)
    assert counted + window.left_out == sum(tier is not None for _, _, tier, _ in entries)


def test_complete_journey_as_an_as_of_join_counts() -> None:
    changes, orders = complete_journey_changes("rfm8-annual"), complete_journey_orders()
    fields = {
        "holdout": pa.nulls(changes.num_rows, pa.bool_()),
        "view": pa.nulls(changes.num_rows, pa.string()),
    }
    whole = changes.select(["customer_id", "seq", "effective_at", "from_tier", "to_tier"])
    for name, column in fields.items():
        whole = whole.append_column(name, column)
    found = Window(Purchases.of([orders]), 30 * DAY_US).of_changes(whole)
    bought = pa.Table.from_batches([orders]).select(["customer_id", "occurred_at"])
    query = """
        SELECT to_tier, count(*), count(*) FILTER (occurred_at <= effective_at + INTERVAL 30 DAY)
        FROM changes ASOF LEFT JOIN bought
          ON changes.customer_id = bought.customer_id AND changes.effective_at < bought.occurred_at
        WHERE effective_at <= (SELECT max(occurred_at) FROM bought) - INTERVAL 30 DAY
        GROUP BY ALL ORDER BY ALL"""
    rows = sql(query, changes=changes, bought=bought)
    assert [(row.tier, row.treated.entries, row.treated.answered) for row in found] == rows
    assert sum(row.treated.entries for row in found) > 10_000


def test_nothing_done_shows_no_effect_in_19_of_20_experiments() -> None:
    # A/A: who is held out is drawn a thousand times, and nobody is treated otherwise.
    changes, orders = complete_journey_changes("rfm8-annual"), complete_journey_orders()
    purchases = Purchases.of([orders])
    entered = changes.filter(pc.equal(changes["to_tier"].cast(pa.string()), "010"))
    count, _ = purchases.within(
        purchases.codes_of(entered["customer_id"]),
        entered["effective_at"].cast(pa.int64()).to_numpy(),
        30 * DAY_US,
    )
    _, first = np.unique(entered["customer_id"].to_numpy(), return_index=True)
    has_bought = count[first] > 0
    random = np.random.default_rng(25)
    for share in (0.1, 0.5):
        is_held = random.random((1_000, has_bought.size)) < share
        held, held_bought = is_held.sum(axis=1), (is_held & has_bought).sum(axis=1)
        treated, treated_bought = has_bought.size - held, has_bought.sum() - held_bought
        _, low, high = newcombe(treated_bought, treated, held_bought, held)
        assert 0.93 <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_an_effect_is_seen() -> None:
    orders = [order(f"c{n}", n, DAY_US, 100) for n in range(600)]
    orders.append(order("late", 0, 99 * DAY_US, 1))
    rows = [
        {"customer_id": f"c{n}", "seq": 1, "effective_at": 0, "to_tier": "1", "holdout": n % 2 == 1}
        for n in range(600)
    ]
    for row in rows:
        if row["holdout"] and int(row["customer_id"][1:]) % 4 == 1:
            row["customer_id"] = "not" + row["customer_id"]  # who did not buy
    (found,) = Window(Purchases.of([canonical_batch(orders)]), 30 * DAY_US).of_changes(changes_of(rows))
    assert (found.treated.rate, found.held.rate, found.difference) == (1.0, 0.5, 0.5)
    assert found.low is not None
    assert 0.4 < found.low < 0.5


def test_signals_by_kind_and_tier() -> None:
    orders = [order("a", 1, 5, 100), order("b", 1, 8, 50), order("z", 1, 1_000, 1)]
    signals = signals_of(
        [
            {"customer_id": "a", "kind": "warning", "effective_at": 1, "tier": "111"},
            {"customer_id": "b", "kind": "warning", "effective_at": 1, "tier": "110"},
            {"customer_id": "b", "kind": "dwell", "effective_at": 9, "tier": "000"},
            {"customer_id": "a", "kind": "warning", "effective_at": 995, "tier": "111"},
        ]
    )
    window = Window(Purchases.of([canonical_batch(orders)]), 6)
    found = window.of_signals(signals)
    assert [(row.kind, row.tier, row.treated) for row in found] == [
        ("dwell", None, Arm(1, 0, 1, 0, 0)),
        ("warning", None, Arm(2, 1, 2, 1, 100)),
        ("warning", "110", Arm(1, 0, 1, 0, 0)),
        ("warning", "111", Arm(1, 1, 1, 1, 100)),
    ]
    assert window.left_out == 1


def test_contacts_by_campaign_and_the_tier_then() -> None:
    changes = changes_of(
        [
            {"customer_id": "a", "seq": 1, "effective_at": 0, "to_tier": "100"},
            {"customer_id": "a", "seq": 2, "effective_at": 10, "to_tier": "000"},
            {"customer_id": "b", "seq": 1, "effective_at": 10, "to_tier": "100"},
        ]
    )
    sent = [
        ("a", "spring", 10),
        ("a", "spring", 9),
        ("b", "spring", 9),
        ("b", "autumn", 12),
        ("c", "autumn", 12),
    ]
    rows = [{"customer_id": who, "campaign": what, "contacted_at": at} for who, what, at in sent]
    orders = [order("a", 1, 14, 5), order("b", 2, 30, 5), order("a", 3, 99, 5)]
    window = Window(Purchases.of([canonical_batch(orders)]), 6)
    found = window.of_contacts(contacts_of(rows), changes)
    shown = {
        (each.tier, each.campaign): (each.contacts, each.responded, each.customers, each.bought)
        for each in found
    }
    assert shown == {
        (None, "autumn"): (1, 0, 1, 0),
        (None, "spring"): (1, 0, 1, 0),
        ("000", "spring"): (1, 1, 1, 1),
        ("100", "autumn"): (1, 0, 1, 0),
        ("100", "spring"): (1, 1, 1, 1),
    }
    rows[1]["responded_at"] = 12
    rows[3]["responded_at"] = 99  # too late
    found = window.of_contacts(contacts_of(rows), changes)
    assert sum(each.responded for each in found) == 1
    assert {each.campaign: each.conversion_rate for each in found if each.tier == "000"} == {"spring": 1.0}
    assert contacts_of(rows).schema.names == [field.name for field in CONTACT_FIELDS]


@settings(deadline=None)
@given(CHANGES, st.lists(st.tuples(st.sampled_from("abcde"), MOMENT), min_size=1, max_size=20))
def test_the_tier_at_a_contact_as_an_as_of_join_finds_it(
    entries: list[tuple[str, int, str | None, bool]], sent: list[tuple[str, int]]
) -> None:
    rows = [
        {"customer_id": who, "seq": at_us * 100 + n, "effective_at": at_us, "to_tier": tier}
        for n, (who, at_us, tier, _) in enumerate(sorted(entries, key=lambda entry: entry[1]))
    ]
    contacts = [{"customer_id": who, "campaign": "c", "contacted_at": at_us} for who, at_us in sent]
    expected: dict[str | None, int] = {}
    for who, at_us in sent:
        own = [row for row in rows if row["customer_id"] == who and row["effective_at"] <= at_us]
        tier = max(own, key=lambda row: row["seq"])["to_tier"] if own else None
        expected[tier] = expected.get(tier, 0) + 1
    window = Window(Purchases.of([]), 5)
    found = window.of_contacts(contacts_of(contacts), changes_of(rows))
    assert {each.tier: each.contacts for each in found} == expected


def run(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli, words, prog_name="rfmstream")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    changes, orders = tmp_path / "changes.parquet", tmp_path / "orders.csv"
    held = pa.array([n % 3 == 0 for n in range(complete_journey_changes("rfm8-annual").num_rows)])
    table = complete_journey_changes("rfm8-annual")
    write_table(changes, table.set_column(table.schema.get_field_index("holdout"), "holdout", held))
    canonical = pa.Table.from_batches([complete_journey_orders()])
    write_table(orders, canonical.select(["customer_id", "order_id", "occurred_at", "amount_minor"]))
    return changes, orders


def test_the_command_says_the_same_in_every_form(files: tuple[Path, Path], tmp_path: Path) -> None:
    changes, orders = files
    out = tmp_path / "outcomes.parquet"
    sent = tmp_path / "sent.csv"
    sent.write_text(
        "customer_id,campaign,contacted_at\n1,spring,2017-05-01 09:00\n718,spring,2017-05-01 09:00\n"
    )
    result = run("outcomes", changes, orders, "--within", "14d", "--contacts", sent, "--json", "--out", out)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["ruleset"] == "rfm8-annual[currency=USD,time_zone=America/New_York]"
    assert document["flaps"]["within_days"] == 14
    assert sum(row["contacts"] for row in document["contacts"]) == 2
    lapsed = next(row for row in document["tiers"] if row["tier"] == "010")
    assert lapsed["difference_low"] < lapsed["difference"] < lapsed["difference_high"]
    rows = pq.read_table(out).to_pylist()
    assert [row["tier"] for row in rows if row["about"] == "tier"] == [
        row["tier"] for row in document["tiers"]
    ]
    row = next(row for row in rows if row["tier"] == "010")
    assert row["treated_customers"] == lapsed["treated"]["customers"]
    assert row["holdout_rate"] == lapsed["holdout"]["rate"]
    shown = run("outcomes", changes, orders, "--within", "14d").output
    assert f"{lapsed['difference']:+.1%} ({lapsed['difference_low']:+.1%} to" in shown
    assert "of 12,690 changes" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--within", "30"), 2, "'30' is no span of time"),
        (("--within", "0d"), 2, "is no span of time"),
        (("--out", "outcomes.txt"), 2, "cannot write .txt"),
        (("--contacts", "none.csv"), 3, "there is no such file"),
        (("--signals", "none.parquet"), 3, "cannot be read as signals"),
        (("--ruleset", "none"), 2, "there is no built-in ruleset 'none'"),
    ],
)
def test_what_the_command_refuses(
    files: tuple[Path, Path], arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = run("outcomes", *files, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_an_output_that_is_an_input(files: tuple[Path, Path]) -> None:
    result = run("outcomes", *files, "--out", files[0])
    assert (result.exit_code, "would overwrite an input" in result.stderr) == (2, True)
