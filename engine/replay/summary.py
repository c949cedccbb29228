"""The closing summary of a replay: what became of the rows, why tiers changed, who is in which tier, what it took.

Money and counts are exact integers throughout; only shares and rates are floats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rfmstream.engine.core.counters import Counters
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.replay.parts_replay import PartsReplay
from rfmstream.engine.replay.replay import ReplayResult
from rfmstream.engine.replay.tiers import TierRow, count_tiers, ratio, tier_rows
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.orders import REJECTION_REASONS
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import SIGNAL_KINDS

_OF_CUSTOMERS: Final = ("customers", "extras", "customer_index", "timers")


@dataclass(frozen=True)
class Summary:
    """The closing summary.

    Fields  input_rows    rows in the files
            excluded      those the map left out: why, and how many, by its [[exclude]] sections
            lines_repeated  order lines that repeated one of an earlier file
            sheets_unread  of workbooks: sheets that are shown and were not read, after the file's name
            alike         refunds and adjustments without an event id that are like another one of the run
            rows_after_until  orders left out because they are dated at or after --until
            rows_ahead, newest_ahead_us  orders dated after the wall clock, and the newest of them
            rows          what became of the order events: read = applied + duplicates + rejected
            rejected      the first few rejected rows, as dicts of REJECTED_SCHEMA
            tiers         in the ruleset's order; customers without a tier come last
            retained_orders  orders, refunded and void ones included, that are in memory; where the ruleset forgets
                             orders some forgotten ones may be among them
            memory_bytes  of the state, by what it holds; of all parts together
            parts         in which it was replayed, one after the other; None: as a whole
            files         rows written, by file
            ruleset       as it was followed: without its signals where nothing took them
    """

    ruleset: Ruleset
    as_of_us: int
    input_rows: int
    excluded: tuple[tuple[str, int], ...]
    lines_repeated: int
    sheets_unread: tuple[str, ...]
    alike: int
    rows_after_until: int
    rows_ahead: int
    newest_ahead_us: int
    rows: Counters
    rejected: tuple[dict[str, Any], ...]
    tiers: tuple[TierRow, ...]
    customers: int
    retained_orders: int
    memory_bytes: Mapping[str, int]
    parts: int | None
    files: Mapping[str, int]
    elapsed_s: float

    @property
    def rows_excluded(self) -> int:
        """Rows that the map left out."""
        return sum(rows for _, rows in self.excluded)

    @property
    def memory_bytes_total(self) -> int:
        """All of the state."""
        return sum(self.memory_bytes.values())

    @property
    def bytes_per_customer(self) -> float | None:
        """What a customer takes besides its orders and ids: records, index and timer."""
        used = sum(self.memory_bytes.get(name, 0) for name in _OF_CUSTOMERS)
        return ratio(used, self.customers)

    @property
    def bytes_per_order(self) -> float | None:
        """What a retained order takes besides its id: record and index."""
        return ratio(self.memory_bytes["orders"] + self.memory_bytes["order_index"], self.retained_orders)

    @property
    def rows_per_s(self) -> float:
        """Order events read a second, from the start to the last file."""
        return self.rows.read / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it as what `--json` prints: integers exact, money in minor units of `currency`."""
        rows = self.rows
        return {
            "ruleset": self.ruleset.identity,
            "fingerprint": self.ruleset.fingerprint,
            "currency": self.ruleset.currency,
            "currency_exponent": self.ruleset.currency_exponent,
            "time_zone": self.ruleset.time_zone,
            "as_of": None if self.as_of_us == NEVER_US else to_text(self.as_of_us),
            "input": {
                "rows": self.input_rows,
                "excluded": self.rows_excluded,
                "excluded_by_rule": [{"why": why, "rows": rows} for why, rows in self.excluded],
                "repeated_lines": self.lines_repeated,
                "sheets_unread": list(self.sheets_unread),
                "alike_without_event_id": self.alike,
                "after_until": self.rows_after_until,
            },
            "dated_ahead": {
                "rows": self.rows_ahead,
                "newest": to_text(self.newest_ahead_us) if self.rows_ahead else None,
            },
            "rows": {
                "read": rows.read,
                "applied": rows.applied,
                "duplicates": rows.duplicates,
                "rejected": sum(rows.rejected.values()),
                "rejected_by_reason": in_order(rows.rejected, REJECTION_REASONS),
            },
            "changes": {
                "total": sum(rows.changes.values()),
                "by_reason": in_order(rows.changes, CHANGE_REASONS),
            },
            "signals": {
                "total": sum(rows.signals.values()),
                "by_kind": in_order(rows.signals, SIGNAL_KINDS),
            }
            if self.ruleset.asks_signals
            else None,
            "customers": self.customers,
            "tiers": [
                {
                    "id": tier.id,
                    "label_zh": tier.label_zh,
                    "label_en": tier.label_en,
                    "customers": tier.customers,
                    "customer_share": tier.customer_share,
                    "lifetime_orders": tier.orders,
                    "lifetime_revenue_minor": tier.revenue_minor,
                    "lifetime_revenue_share": tier.revenue_share,
                    "average_order_minor": tier.average_order_minor,
                }
                for tier in self.tiers
            ],
            "memory": {
                "total_bytes": self.memory_bytes_total,
                "by_use_bytes": dict(self.memory_bytes),
                "retained_orders": self.retained_orders,
                "bytes_per_customer": self.bytes_per_customer,
                "bytes_per_retained_order": self.bytes_per_order,
                "parts": self.parts,
            },
            "files": dict(self.files),
            "elapsed_s": round(self.elapsed_s, 3),
            "rows_per_s": round(self.rows_per_s),
        }


def summarise(result: ReplayResult | PartsReplay) -> Summary:
    """Build the summary of a replay."""
    if isinstance(result, PartsReplay):
        ruleset, tiers = result.ruleset, tier_rows(result.tiers, result.ruleset)
        customers, orders, memory, parts = result.customers, result.orders, result.memory, result.parts
    else:
        engine = result.engine
        ruleset, tiers = engine.ruleset, count_tiers(result.snapshot, engine.ruleset)
        customers, orders, memory, parts = result.snapshot.num_rows, engine.orders, engine.memory, None
    return Summary(
        ruleset=ruleset,
        as_of_us=result.as_of_us,
        input_rows=result.input_rows,
        excluded=result.excluded,
        lines_repeated=result.lines_repeated,
        sheets_unread=result.sheets_unread,
        alike=result.alike,
        rows_after_until=result.rows_after_until,
        rows_ahead=result.rows_ahead,
        newest_ahead_us=result.newest_ahead_us,
        rejected=result.rejected,
        rows=result.counters,
        tiers=tiers,
        customers=customers,
        retained_orders=orders,
        memory_bytes=memory,
        parts=parts,
        files={str(path): rows for path, rows in result.files.items()},
        elapsed_s=result.elapsed_s,
    )


def in_order(counts: Mapping[str, int], words: tuple[str, ...]) -> dict[str, int]:
    """Return the counts that are there in the order of `words`."""
    return {word: counts[word] for word in words if word in counts}
