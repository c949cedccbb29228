"""docs/capacity.md shows what the command prints; what it reckons follows what was measured."""

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from bench import capacity

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "capacity.md"
EXAMPLE = re.compile(r"(?<=\n```\n)\$ python -m bench\.capacity (.*)\n((?:.*\n)*?)(?=```\n)")
ASKED = capacity.Asked(
    customers=10**6,
    orders_per_second=10**6,
    orders_a_customer=10,
    changes_an_order=1.0,
    customer_id_bytes=10,
    order_id_bytes=10,
    cores=8,
    memory_gib=64,
    spare=0.5,
    checkpoint_interval_s=60,
    store_megabytes_per_s=100,
    session_timeout_s=20,
    replicas=3,
    days_kept=7,
)
FOUND = capacity.Figures(
    customer_bytes=100,
    order_bytes=40,
    resident=1.0,
    saved_customer_bytes=80,
    saved_order_bytes=30,
    worker_order_us=1.0,
    worker_change_us=3.0,
    broker_order_us=0.5,
    broker_change_us=1.5,
    order_log_bytes=200,
    change_log_bytes=100,
    change_share=1.5,
    checkpoint_ns=1.0,
    restore_ns=2.0,
    takeover_s=1.0,
)


def test_the_examples_are_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    examples = EXAMPLE.findall(text)
    assert len(examples) == text.count("$ python -m bench.capacity") > 3
    for options, shown in examples:
        assert capacity.main(shlex.split(options)) == 0
        printed = capsys.readouterr().out
        if os.environ.get("REWRITE_CAPACITY"):
            text = text.replace(
                f"$ python -m bench.capacity {options}\n{shown}",
                f"$ python -m bench.capacity {options}\n{printed}",
            )
            DOCUMENT.write_text(text, encoding="utf-8")
        else:
            assert shown == printed, options


def test_what_is_needed_follows_what_was_measured() -> None:
    needs = capacity.needed(ASKED, FOUND)
    # A million customers of 100 B and an id, each with ten orders of 40 B and an id.
    assert needs.state_bytes == 10**6 * (110 + 10 * 50)
    assert needs.checkpoint_bytes == 10**6 * (90 + 10 * 40)
    # 4 µs an order at a million orders a second, on workers of which half of eight cores is used.
    assert (needs.worker_cores, needs.workers_for_time, needs.workers_for_memory, needs.workers) == (
        4.0,
        1,
        1,
        1,
    )
    assert needs.broker_cores == 3 * 2.0
    assert (needs.order_bytes_per_s, needs.change_bytes_per_s) == (6 * 10**8, 3 * 10**8)
    assert needs.log_bytes_kept == 9 * 10**8 * 7 * 86_400
    assert (needs.checkpoint_interval_s, needs.checkpoint_bytes_per_s) == (60, round(49 * 10**7 / 60))
    # The timeout, the takeover, 490 MB at 100 MB/s, and a minute of orders at 4 of 8 cores.
    assert needs.away_s == 20 + 1 + 4.9 + 30


def test_more_of_either_needs_more_workers() -> None:
    for more, name in (
        (replace(ASKED, orders_per_second=10**7), "workers_for_time"),
        (replace(ASKED, customers=10**9), "workers_for_memory"),
    ):
        needs = capacity.needed(more, FOUND)
        assert needs.workers == getattr(needs, name) > 9
        assert needs.partitions >= 2 * 8 * needs.workers


def test_a_store_that_is_too_slow_makes_the_interval_longer() -> None:
    needs = capacity.needed(replace(ASKED, store_megabytes_per_s=1), FOUND)
    assert needs.checkpoint_interval_s == 490
    assert needs.checkpoint_bytes_per_s == 10**6


def test_a_partition_never_has_too_many_entries() -> None:
    needs = capacity.needed(replace(ASKED, customers=10**9, memory_gib=10**6), FOUND)
    assert needs.workers == 1
    assert 11 * 10**9 / needs.partitions < 2**31


def test_two_runs_part_the_cost_of_an_order_and_of_a_change() -> None:
    many = {"orders": 100, "changes": 150, "worker_s": 100e-6 + 150 * 2e-6}
    few = {"orders": 100, "changes": 20, "worker_s": 100e-6 + 20 * 2e-6}
    assert capacity._parted(many, few, "worker_s") == pytest.approx((1.0, 2.0))


def test_figures_and_needs_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main(["--customers", "2.5M", "--orders-per-second", "1k", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["asked"]["customers"] == 2_500_000
    assert min(told["measured"].values()) > 0
    assert told["needed"]["workers"] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        ("{", "Expecting property name"),
        ("{}", "has no 'benchmarks'"),
        ('{"benchmarks": []}', "lacks the memory of"),
    ],
)
def test_a_result_file_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content)
    assert capacity.main(["--customers", "1", "--orders-per-second", "1", "--engine", str(path)]) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert words in line
    assert "name results of make bench" in line


@pytest.mark.parametrize("count", ["0", "-1", "much", "0.1", "1P", "nan", "infG"])
def test_what_is_no_count_is_a_usage_error(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        capacity.main(["--customers", count, "--orders-per-second", "1"])
    assert ended.value.code == 2
    assert "is no count" in capsys.readouterr().err
