"""The guard: when more customers than a share of all move within an hour, nobody is written to.

A time jump, a wrong ruleset or a backfill moves everybody at once. The hour is of the time at which the worker wrote
the changes, so what has piled up while a destination was down is not taken for one.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np
import xxhash

HOUR_MS: Final = 3_600_000
_MINUTE_MS: Final = 60_000
_REGISTER_BITS: Final = 12


class CustomerSketch:
    """How many customers there are, give or take 2 %: HyperLogLog over their ids, 4 KiB.

    Fields  registers  u8[4096]  the highest rank seen of the ids that fall to each
    Source  Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog", 2007, with linear counting for small numbers
    """

    def __init__(self) -> None:
        self.registers = np.zeros(1 << _REGISTER_BITS, dtype=np.uint8)

    def add(self, customer: bytes) -> None:
        """Count a customer."""
        digest = xxhash.xxh3_64_intdigest(customer)
        rest = digest >> _REGISTER_BITS
        rank = 64 - _REGISTER_BITS - rest.bit_length() + 1
        register = digest & ((1 << _REGISTER_BITS) - 1)
        self.registers[register] = max(self.registers[register], rank)

    def merge(self, other: "CustomerSketch") -> None:
        """Count the customers of another sketch, too."""
        np.maximum(self.registers, other.registers, out=self.registers)

    def count(self) -> int:
        """Return the number of customers counted."""
        size = self.registers.size
        estimate = 0.7213 / (1 + 1.079 / size) * size * size / np.sum(2.0 ** -self.registers.astype(float))
        empty = int(np.count_nonzero(self.registers == 0))
        if estimate <= 2.5 * size and empty:
            return round(size * math.log(size / empty))
        return round(float(estimate))


@dataclass
class Guard:
    """Changes of the last hour against the customers there are.

    Fields  share       of the customers that may change within an hour
            at_least    so many changes an hour are always let through
            customers   how many there are
            since_ms    changes written up to here were released
    """

    share: Fraction
    at_least: int = 0
    customers: int = 0
    since_ms: int = 0
    tripped_at_ms: int | None = None
    _minutes: deque[tuple[int, int]] = field(default_factory=deque)
    _count: int = 0

    @property
    def limit(self) -> int:
        """Changes an hour that are let through."""
        return max(int(self.share * self.customers), self.at_least)

    @property
    def count(self) -> int:
        """Changes of the last hour."""
        return self._count

    def see(self, timestamp_ms: int, number: int = 1) -> None:
        """Count changes that were written at an instant."""
        if timestamp_ms <= self.since_ms:
            return
        minute = timestamp_ms // _MINUTE_MS
        if self._minutes and self._minutes[-1][0] >= minute:
            minute, before = self._minutes.pop()
            number_there = before + number
        else:
            number_there = number
        self._minutes.append((minute, number_there))
        self._count += number
        while self._minutes[0][0] <= minute - HOUR_MS // _MINUTE_MS:
            self._count -= self._minutes.popleft()[1]
        if self.tripped_at_ms is None and self._count > self.limit:
            self.tripped_at_ms = timestamp_ms

    def recheck(self) -> None:
        """Look again, after the number of customers became known or larger."""
        if self.tripped_at_ms is None and self._count > self.limit:
            self.tripped_at_ms = self._minutes[-1][0] * _MINUTE_MS

    def release(self, until_ms: int) -> None:
        """Let through what was written up to an instant, and begin to count behind it."""
        if until_ms <= self.since_ms:
            return
        self.since_ms = until_ms
        kept = [(minute, number) for minute, number in self._minutes if minute * _MINUTE_MS > until_ms]
        self._minutes = deque(kept)
        self._count = sum(number for _, number in kept)
        self.tripped_at_ms = None
        if kept:
            self.recheck()
