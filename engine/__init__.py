"""rfmstream: exact RFM customer segmentation over a stream of orders.

>>> from engine import Engine
>>> engine = Engine("rfm8")
>>> result = engine.step(orders)             # any Arrow table: pyarrow, Polars, pandas, DuckDB
>>> result.changes, result.rejected          # record batches
>>> engine.snapshot(as_of="2026-12-01T00:00:00Z")

The names below are loaded when they are first used, so that `rfmstream --help` need not wait for the compiler.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engine.engine import Counters, Engine, StepResult
    from schemas.errors import ConfigError, InputError, RfmError, StateError, TransportError
    from schemas.ruleset import Ruleset, list_rulesets, load_ruleset

__all__ = [
    "ConfigError",
    "Counters",
    "Engine",
    "InputError",
    "RfmError",
    "Ruleset",
    "StateError",
    "StepResult",
    "TransportError",
    "list_rulesets",
    "load_ruleset",
]

_HOMES: Final = {
    "engine.engine": ("Counters", "Engine", "StepResult"),
    "schemas.errors": ("ConfigError", "InputError", "RfmError", "StateError", "TransportError"),
    "schemas.ruleset": ("Ruleset", "list_rulesets", "load_ruleset"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
