import json
from itertools import pairwise
from pathlib import Path

import jenkspy
import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from real_changes import cdnow_orders
from real_orders import packaged

from rfmstream import Engine, load_ruleset
from rfmstream.engine.cli.app import cli
from rfmstream.engine.insight.bands import count_bands
from rfmstream.engine.insight.purchases import Purchases
from rfmstream.engine.insight.suggest import suggest, toml_of
from rfmstream.schemas.errors import InputError

CDNOW = (packaged("lifetimes", "CDNOW_master.txt"), "--map", "cdnow", "--currency", "USD")


def run(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": "120"}).invoke(cli, words, prog_name="rfmstream")


def test_figures_of_cdnow(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    result = run("rulesets", "suggest", *CDNOW, "--like", "rfm8", "--as-of", "1998-07-01", "--out", out)
    assert result.exit_code == 0, result.output
    assert "50%, 80%, 90%, 95% within 34, 119, 200, 283 days" in result.output
    assert "quantiles 20%, 40%, 60%, 80%: 1, 1, 2, 4" in result.output
    assert "F quintiles 1, 1, 2, 4 collapse by ties: 3 classes of 5" in result.output
    assert "average order 35.89 USD; 3 to 5 times that: 107.68 to 179.47" in result.output
    own = load_ruleset(out)
    assert (own.name, own.recency_cuts_days, own.frequency_cuts) == ("mine", (119,), (3,))
    assert (own.monetary_cuts_minor, own.currency) == ((14_357,), "USD")


@pytest.mark.parametrize(
    ("like", "more"),
    [
        ("rfm8", ()),
        ("rfm8-annual", ("--time-zone", "America/New_York")),
        ("rfm8-grace", ("--monetary", "breaks")),
        ("scores4", ()),
    ],
)
def test_the_shares_are_those_of_a_replay_with_the_written_file(
    like: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    out, options = tmp_path / "ours.toml", ("--as-of", "1998-07-01", "--json")
    told = run("rulesets", "suggest", *CDNOW, "--like", like, *more, *options, "--out", out)
    assert told.exit_code == 0, told.output
    played = run("replay", *CDNOW[:3], "--ruleset", out, *options)
    assert played.exit_code == 0, played.output
    said, done = json.loads(told.stdout), json.loads(played.stdout)
    assert (said["ruleset"], said["as_of"]) == (done["ruleset"], done["as_of"])
    for ours, theirs in zip(said["tiers"], done["tiers"], strict=True):
        assert ours["id"] == theirs["id"]
        assert ours["customer_share"] == theirs["customer_share"]
        assert ours["revenue_minor"] == theirs["lifetime_revenue_minor"]
        assert ours["revenue_share"] == theirs["lifetime_revenue_share"]
    for measure in "rfm":
        bands = [band for band in said["bands"] if band["measure"] == measure]
        assert sum(band["customers"] for band in bands) == 23_570
        assert sum(band["revenue_minor"] for band in bands) == 250_031_563
    base = load_ruleset(like)
    own = load_ruleset(out)
    assert own.lookup.tolist() == base.lookup.tolist()
    for cuts in (own.recency_cuts_days, own.frequency_cuts, own.monetary_cuts_minor):
        assert all(low < high for low, high in pairwise(cuts))


def test_quantiles_and_breaks_are_those_of_numpy_and_jenkspy() -> None:
    engine = Engine(load_ruleset("scores4", currency="USD"))
    orders = cdnow_orders().slice(0, 8_000)
    engine.step_canonical(orders)
    purchases = Purchases.of([orders])
    snapshot = engine.snapshot()
    days: dict[str, set[int]] = {}
    at = orders["occurred_at"].cast(pa.int64()).to_pylist()
    for customer, at_us in zip(orders["customer_id"].to_pylist(), at, strict=True):
        days.setdefault(customer, set()).add(at_us // 86_400_000_000)
    gaps = np.concatenate([np.diff(sorted(own)) for own in days.values()])
    found = suggest(purchases, snapshot, engine.ruleset, "breaks")
    assert sorted(purchases.gap_days("UTC").tolist()) == sorted(gaps.tolist())
    assert found.gaps_days == tuple(np.quantile(gaps, (0.5, 0.8, 0.9, 0.95)))
    assert found.recency_cuts == tuple(np.ceil(found.gaps_days))
    amounts = sorted(snapshot["monetary_minor"].to_pylist())
    assert len(amounts) <= 10_000
    ends = jenkspy.jenks_breaks(amounts, n_classes=5)[1:-1]
    assert found.monetary_cuts_minor == tuple(min(m for m in amounts if m > end) for end in ends)


def test_gaps_are_of_local_days() -> None:
    engine = Engine("rfm8")
    orders = pa.table(
        {
            "customer_id": ["x"] * 4 + ["y"],
            "order_id": list("abcde"),
            "occurred_at": [
                f"2026-03-{at}:00Z" for at in ("01T15:30", "01T16:30", "02T15:00", "09T03:00", "20T00:00")
            ],
            "amount": ["10"] * 5,
        }
    )
    engine.step(orders)
    canonical = pa.RecordBatch.from_arrays(
        [
            orders["customer_id"].combine_chunks(),
            orders["order_id"].combine_chunks(),
            pa.array([0] * 5, pa.uint8()),
            pa.array([f"{text[:-1]}" for text in orders["occurred_at"].to_pylist()])
            .cast(pa.timestamp("us"))
            .cast(pa.timestamp("us", "UTC")),
            pa.array([1_000] * 5),
            pa.nulls(5, pa.string()),
        ],
        names=["customer_id", "order_id", "type", "occurred_at", "amount_minor", "event_id"],
    )
    purchases = Purchases.of([canonical])
    assert purchases.gap_days("UTC").tolist() == [1, 7]
    assert purchases.gap_days("Asia/Shanghai").tolist() == [1, 7]
    assert purchases.gap_days("America/Los_Angeles").tolist() == [1, 6]
    assert suggest(purchases, engine.snapshot(), engine.ruleset).average_minor == 1_000


def test_too_little_history() -> None:
    engine = Engine("rfm8")
    orders = cdnow_orders().slice(0, 1)
    engine.step_canonical(orders)
    with pytest.raises(InputError, match="too little history"):
        suggest(Purchases.of([orders]), engine.snapshot(), engine.ruleset)


def test_bands_of_nobody() -> None:
    bands = count_bands(Engine("rfm8").snapshot(), (2, 2, 2))
    assert [(band.measure, band.band, band.customers, band.customer_share) for band in bands[:2]] == [
        ("r", 1, 0, None),
        ("r", 0, 0, None),
    ]


def test_a_file_to_be_like_is_found_from_the_new_ones_folder(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    base = tmp_path / "base.toml"
    base.write_text('name = "base"\nextends = "rfm8"\ntitle = "x"\ncurrency = "USD"\n')
    out = tmp_path / "rules" / "über uns.toml"
    result = run("rulesets", "suggest", *CDNOW[:3], "--like", base, "--out", out)
    assert result.exit_code == 0, result.output
    assert load_ruleset(out).name == "-ber-uns"
    assert 'extends = "../base.toml"' in out.read_text()
    assert list(out.parent.iterdir()) == [out]


def test_the_text_of_a_name_is_escaped() -> None:
    engine = Engine("rfm8")
    engine.step_canonical(cdnow_orders().slice(0, 5_000))
    found = suggest(Purchases.of([cdnow_orders().slice(0, 5_000)]), engine.snapshot(), engine.ruleset)
    assert 'extends = "a\\"b\\\\c"' in toml_of(found, name="x", base='a"b\\c', like=engine.ruleset)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--out", "mine.txt"), 2, "end it in .toml"),
        (("--out", "no/folder/mine.toml"), 2, "there is no such folder"),
        (("--out", "mine.toml", "--like", "none"), 2, "there is no built-in ruleset 'none'"),
        (("--out", "mine.toml", "--name", "a b"), 2, "'a b' is not a name"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("rulesets", "suggest", *CDNOW, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert not list(tmp_path.iterdir())
