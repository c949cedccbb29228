"""Intervals of shares, and of the difference of two shares.

Source  R. G. Newcombe, Interval estimation for the difference between independent proportions: comparison of eleven
        methods, Statistics in Medicine 17 (1998) 873-890, method 10; E. B. Wilson, JASA 22 (1927) 209-212
"""

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z_95: Final = 1.959963984540054
"""Within so many standard deviations lie 95 % of a normal distribution."""

Floats = NDArray[np.float64]


def wilson(hits: ArrayLike, trials: ArrayLike, z: float = Z_95) -> tuple[Floats, Floats]:
    """Return Wilson's interval (low, high) of a share; of no trials (0, 1).

    In      hits, trials  of one share or of many: arrays of one shape
    """
    hit, count = np.asarray(hits, np.float64), np.asarray(trials, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hit / count
        middle = share + z * z / (2 * count)
        half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
        low, high = (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)
    # A share of 0 or 1 is an end of its interval, which rounding would miss by a bit.
    low = np.where(hit == 0, 0.0, np.maximum(low, 0.0))
    high = np.where(hit == count, 1.0, np.minimum(high, 1.0))
    return np.where(count > 0, low, 0.0), np.where(count > 0, high, 1.0)


def newcombe(
    hits: ArrayLike, trials: ArrayLike, other_hits: ArrayLike, other_trials: ArrayLike, z: float = Z_95
) -> tuple[Floats, Floats, Floats]:
    """Return the difference of two shares, the first less the other, and Newcombe's interval of it.

    Returns (difference, low, high); NaN where either has no trials
    """
    first, second = _share(hits, trials), _share(other_hits, other_trials)
    (low, high), (other_low, other_high) = wilson(hits, trials, z), wilson(other_hits, other_trials, z)
    difference = first - second
    below = np.sqrt((first - low) ** 2 + (other_high - second) ** 2)
    above = np.sqrt((high - first) ** 2 + (second - other_low) ** 2)
    return difference, difference - below, difference + above


def _share(hits: ArrayLike, trials: ArrayLike) -> Any:  # noqa: ANN401 - an array, or numpy's scalar
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(hits, np.float64) / np.asarray(trials, np.float64)
