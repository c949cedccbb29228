from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rfmstream import Engine, Plan, View, Views, load_ruleset
from rfmstream.engine.core.lookup import rows_of
from rfmstream.schemas.errors import ConfigError, InputError, StateError

RFM8, SCORES4 = load_ruleset("rfm8"), load_ruleset("scores4")
PLAN = Plan(
    (
        View("all", RFM8),
        View("china", RFM8, (("store", ("hk", "tw")),)),
        View("category", SCORES4, per="category"),
        View("next", load_ruleset("rfm8-grace"), shadow=True),
    )
)
ROWS = [
    ("ann", "o1", "2026-01-01", "500", "hk", "books", "paid"),
    ("ann", "o2", "2026-01-02", "700", "tw", "toys", "paid"),
    ("bob", "o1", "2026-01-03", "1200", "us", "books", "paid"),
    ("cid", "o1", "2026-01-04", "20", None, None, "paid"),
    ("dan", "o1", "2026-01-05", "bad", "hk", "", "paid"),
    ("ann", "o2", "2026-01-06", "900", "tw", "toys", "refunded"),
]
NAMES = ["customer_id", "order_id", "occurred_at", "amount", "store", "category", "type"]


def table(rows: list[tuple[str | None, ...]] = ROWS) -> pa.Table:
    return pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], names=NAMES)


def own(rows: list[tuple[str | None, ...]], ruleset: str = "rfm8") -> Engine:
    engine = Engine(ruleset)
    engine.step(table(rows))
    return engine


def without_view(rows: pa.Table) -> list[dict[str, object]]:
    return rows.drop_columns(["view", "population"]).to_pylist()


def test_a_table_seen_in_four_ways() -> None:
    views = Views(PLAN)
    result = views.step(table())
    alone = Engine("rfm8").step(table())
    assert without_view(result.views["all"].changes) == without_view(alone.changes)
    china = [row for row in ROWS if row[4] in ("hk", "tw")]
    assert without_view(result.views["china"].changes) == without_view(
        Engine("rfm8").step(table(china)).changes
    )
    assert without_view(views.snapshot(view="china")) == without_view(own(china).snapshot())
    books = own([row for row in ROWS if row[5] == "books"], "scores4")
    parted = views.snapshot("2026-02-01", view="category")
    of_books = parted.filter(pc.equal(parted["population"], "books"))
    assert without_view(of_books) == without_view(books.snapshot("2026-02-01"))
    # Shadows are there, but not among what is to be acted on.
    assert set(result.changes["view"].to_pylist()) == {"all", "china", "category"}
    assert result.views["next"].changes.num_rows == 5 - 1
    assert set(views.snapshot()["view"].to_pylist()) == {"all", "china", "category"}


def test_a_rejected_row_is_told_once_a_reason_with_its_views() -> None:
    result = Views(PLAN).step(table())
    assert [(row["row"], row["reason"], row["views"]) for row in result.rejected.to_pylist()] == [
        (3, "malformed", "category"),
        (4, "malformed", "category"),
        (4, "bad_amount", "all,china,next"),
        (5, "refund_exceeds_order", "all,china,category,next"),
    ]


def test_what_each_view_counts() -> None:
    views = Views(PLAN)
    views.step(table())
    counted = {name: of.engine.counters for name, of in views.views.items()}
    assert [counted[name].read for name in PLAN.names] == [6, 4, 6, 6]
    assert counted["china"].rejected == {"bad_amount": 1, "refund_exceeds_order": 1}
    assert counted["category"].rejected == {"malformed": 2, "refund_exceeds_order": 1}


def test_values_are_compared_as_text() -> None:
    numbers = table().set_column(4, "store", pa.array([1, 2, 1, None, 1, 2], pa.int16()))
    flags = numbers.set_column(5, "category", pa.array([True, False, True, None, None, False]))
    plan = Plan((View("one", RFM8, (("store", ("1",)),)), View("flag", RFM8, per="category")))
    views = Views(plan)
    views.step(flags)
    assert views["one"].engine.counters.read == 3
    assert sorted(set(views.snapshot(view="flag")["population"].to_pylist())) == ["false", "true"]


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(
        InputError, match="no column store, which a view looks at; the columns are customer_id, "
    ):
        Views(PLAN).step(table().drop_columns(["store"]))


def test_erasures_need_not_say_their_population() -> None:
    views = Views(PLAN)
    views.step(table())
    erasure = table([("ann", "", "2026-01-07", "", None, None, "erased")])
    result = views.step(erasure.select(["customer_id", "occurred_at", "type"]))
    changes = result.views["category"].changes.to_pylist()
    assert sorted((row["population"], row["reason"]) for row in changes) == [
        ("books", "erased"),
        ("toys", "erased"),
    ]
    assert result.views["china"].changes.num_rows == 1
    # Somewhere ann has never been: what is dated before the erasure comes too late there, too.
    late = [
        ("ann", "o7", "2026-01-06", "5", "hk", "tea", "paid"),
        ("ann", "o8", "2026-01-08", "5", "hk", "tea", "paid"),
    ]
    result = views.step(table(late))
    assert [(row["reason"], row["views"]) for row in result.rejected.to_pylist()] == [
        ("erased_customer", "all,china,category,next")
    ]
    counters = views["category"].engine.counters
    assert counters.read == counters.applied + counters.duplicates + sum(counters.rejected.values()) == 9


def test_customers_are_found_by_population() -> None:
    views = Views(PLAN, threads=2)
    views.step(table())
    engine = views["category"].engine
    assert sorted(rows_of(engine, ["ann"])["population"].to_pylist()) == ["books", "toys"]
    assert rows_of(engine, ["ann", "bob"], population="toys")["customer_id"].to_pylist() == ["ann"]
    assert rows_of(engine, ["ann"], population="nowhere").num_rows == 0


def test_an_unknown_view() -> None:
    with pytest.raises(
        ConfigError, match=r"view: there is no view 'x'; name one of all, china, category, next"
    ):
        Views(PLAN).snapshot(view="x")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    views = Views(PLAN)
    views.step(table())
    views.checkpoint(tmp_path / "state")
    return tmp_path / "state"


def test_views_go_on_from_a_checkpoint(saved: Path) -> None:
    straight = Views(PLAN)
    straight.step(table())
    again = Views.restore(saved)
    assert [(view.name, view.where, view.per, view.shadow) for view in again.plan.views] == [
        (view.name, view.where, view.per, view.shadow) for view in PLAN.views
    ]
    more = table([("ann", "o9", "2026-02-01", "5", "hk", "books", "paid")])
    assert again.step(more).changes.to_pylist() == straight.step(more).changes.to_pylist()
    for name in PLAN.names:
        assert again.snapshot(view=name).equals(straight.snapshot(view=name))


def test_the_checkpoint_of_a_view_is_that_of_a_run_of_its_own(saved: Path, tmp_path: Path) -> None:
    own([row for row in ROWS if row[4] in ("hk", "tw")]).checkpoint(tmp_path / "alone")
    for name in ("1-0-customers.arrow", "1-0-entries.arrow"):
        theirs, ours = (folder / name for folder in (tmp_path / "alone", saved / "1-1"))
        assert theirs.read_bytes() == ours.read_bytes()
    assert Engine.restore(saved, view="china").view == "china"


def test_checkpoints_replace_each_other_in_one_step(saved: Path) -> None:
    views = Views.restore(saved, PLAN)
    views.step(table([("eva", "o1", "2026-02-01", "5", "hk", "books", "paid")]))
    views.checkpoint(saved)
    assert sorted(path.name for path in saved.iterdir()) == ["2-0", "2-1", "2-2", "2-3", "manifest.json"]
    assert Views.restore(saved, PLAN)["all"].engine.customers == 4


def test_a_crash_leaves_the_checkpoint_before(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = Views.restore(saved, PLAN)
    views.step(table([("eva", "o1", "2026-02-01", "5", "hk", "books", "paid")]))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rfmstream.engine.core.checkpoint.views.sealed", die)
    with pytest.raises(KeyboardInterrupt):
        views.checkpoint(saved)
    assert Views.restore(saved, PLAN)["all"].engine.customers == 3
    assert sorted(path.name for path in saved.iterdir()) == ["1-0", "1-1", "1-2", "1-3", "manifest.json"]


def test_new_views_and_dropped_ones_are_told(saved: Path) -> None:
    views = Views.restore(saved, Plan((PLAN.views[0], View("taiwan", RFM8, (("store", ("tw",)),)))))
    assert (views.added, views.dropped) == (("taiwan",), ("china", "category", "next"))
    views.step(table([("eva", "o1", "2026-02-01", "5", "tw", "books", "paid")]))
    assert (views["all"].engine.customers, views["taiwan"].engine.customers) == (4, 1)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (
            View("china", RFM8, (("store", ("hk",)),)),
            "made with where store in hk, tw, not with where store in hk",
        ),
        (View("china", RFM8), "made with where store in hk, tw, not with all events"),
        (View("category", SCORES4, per="store"), "made with per category, not with per store"),
        (View("all", SCORES4), "the checkpoint's view all belongs to ruleset rfm8, not to scores4; "),
    ],
)
def test_a_plan_that_contradicts_the_checkpoint(saved: Path, view: View, words: str) -> None:
    with pytest.raises(StateError) as caught:
        Views.restore(saved, Plan((view,)))
    assert words in str(caught.value)
    assert "name" in str(caught.value) or "resegment" in str(caught.value)


def test_a_view_is_resegmented(saved: Path) -> None:
    views = Views.restore(saved)
    changes = views.resegment("all", SCORES4)
    assert set(changes["reason"].to_pylist()) == {"rules_changed"}
    assert set(changes["view"].to_pylist()) == {"all"}
    views.checkpoint(saved)
    assert Views.restore(saved)["all"].engine.ruleset.identity == "scores4"


def test_the_checkpoint_of_one_engine_is_of_the_view_named_as_its_ruleset(tmp_path: Path) -> None:
    own(ROWS).checkpoint(tmp_path / "state")
    views = Views.restore(tmp_path / "state", Plan((View("rfm8", RFM8), View("new", SCORES4))))
    assert (views.added, views.dropped) == (("new",), ())
    assert views["rfm8"].engine.customers == 3
    views.checkpoint(tmp_path / "state")
    assert Views.restore(tmp_path / "state").plan.names == ("rfm8", "new")


def test_one_engine_out_of_several(saved: Path) -> None:
    with pytest.raises(ConfigError, match="there are several views; name one of all, china, category, next"):
        Engine.restore(saved)
    with pytest.raises(ConfigError, match="there is no view 'x'"):
        Engine.restore(saved, view="x")
    with pytest.raises(StateError, match="parts its customers by a column that an engine does not look at"):
        Engine.restore(saved, view="category").step(table())
    with pytest.raises(StateError, match="several views, which one engine cannot replace"):
        Engine.restore(saved, view="all").checkpoint(saved)


def test_a_damaged_manifest(saved: Path) -> None:
    manifest = saved / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"china"', '"chine"'))
    with pytest.raises(StateError, match="checksum"):
        Views.restore(saved)


def test_views_that_count_in_several_currencies() -> None:
    dollars = load_ruleset("rfm8", currency="USD", time_zone="America/New_York")
    views = Views(Plan((View("yuan", RFM8), View("dollars", dollars))))
    priced = table(ROWS[:2]).append_column("currency", pa.array(["CNY", "USD"]))
    result = views.step(priced)
    assert [(row["row"], row["reason"], row["views"]) for row in result.rejected.to_pylist()] == [
        (0, "currency_mismatch", "dollars"),
        (1, "currency_mismatch", "yuan"),
    ]
    assert len(views.groups) == 2


def test_memory_is_told_by_view() -> None:
    views = Views(PLAN)
    views.step(table())
    assert set(views.memory) == set(PLAN.names)
    assert "populations" in views.memory["category"]
