"""The oracle under the log's clock (docs/semantics.md 5): obviously slow, one event at a time.

Every event comes with the time of its record. The clock is the newest of these, and of the instants of ticks.
"""

import heapq
from collections import defaultdict

from oracle import Event, Oracle, Rules, stops_us


class LogOracle(Oracle):
    """An oracle whose clock is the log's.

    Fields  is_open  whether the contract leaves the result open: a customer was measured at an instant beyond the clock
                     (its event was dated ahead) and then again before it, and time changes its measures in between
    """

    def __init__(self, rules: Rules, tolerance_us: int, mode: str = "live") -> None:
        super().__init__(rules, mode)
        self.tolerance_us = tolerance_us
        self.ahead_us: defaultdict[str, int] = defaultdict(lambda: -(2**63))
        self.is_open = False

    def receive(self, log_us: int, event: Event | None) -> str | None:
        """Take a row of a record of this time; None stands for one that is no order. Return what became of it."""
        self.advance(log_us)
        if event is None:
            return None
        assert self.clock_us is not None
        clock_us, at_us = self.clock_us, event["occurred_at_us"]
        if at_us > clock_us + self.tolerance_us:
            outcome = "future_time"
        elif at_us <= clock_us:
            outcome = self._apply(event)
        else:
            # Only its own customer goes ahead of the clock.
            own = [stop for stop in self.stops if stop[1] == event["customer_id"]]
            others = [stop for stop in self.stops if stop[1] != event["customer_id"]]
            self.stops = own
            heapq.heapify(self.stops)
            outcome = self._apply(event)
            self.stops += others
            heapq.heapify(self.stops)
            self.clock_us = clock_us
        self.outcomes.append(outcome)
        return outcome

    def _judged_at_us(self, event: Event) -> int:  # noqa: ARG002 - of an oracle
        """Instant at which an event is judged: the log's clock, even of one that is dated ahead of it."""
        assert self.clock_us is not None
        return self.clock_us

    def _evaluate(self, customer_id: str, now_us: int, event: Event | None) -> None:
        customer = self.customers[customer_id]
        if customer.changed_us is not None:
            now_us = max(now_us, customer.changed_us)
        ahead_us = self.ahead_us[customer_id]
        self.is_open |= any(stop <= ahead_us for stop in stops_us(self.rules, customer, now_us))
        self.ahead_us[customer_id] = max(ahead_us, now_us)
        super()._evaluate(customer_id, now_us, event)
        if event is not None and event["type"] == "erased":
            customer.changed_us = now_us
