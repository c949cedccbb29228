"""Cuts and the bands they make. Source: docs/semantics.md 4."""

import numpy as np

from rfmstream.kernels._jit import inline


@inline
def count_band(cuts, value):
    """Return how many of the ascending cuts are <= value."""
    band = np.int64(0)
    while band < cuts.size and cuts[band] <= value:
        band += 1
    return band
