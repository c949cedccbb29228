"""rfmstream: exact RFM customer segmentation over a stream of orders.

>>> import rfmstream
>>> engine = rfmstream.Engine("rfm8")
>>> result = engine.step(orders)             # any Arrow table: pyarrow, Polars, pandas, DuckDB
>>> result.changes, result.rejected          # record batches
>>> engine.snapshot(as_of="2026-12-01T00:00:00Z")

>>> views = rfmstream.Views("views.toml")       # several rulesets, stores or categories on one stream
>>> views.step(orders).changes

>>> rfmstream.replay(engine, [Path("orders.parquet")], outputs=rfmstream.Outputs(changes=Path("changes.parquet")))

These names are the public interface. Each is loaded when it is first used, so that `import rfmstream` waits neither
for Arrow nor for the compiler. `rfmstream.engine`, `rfmstream.kernels` and `rfmstream.schemas` are the rooms behind
them; what is not listed here may change in any release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rfmstream.engine.core.counters import Counters
    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.core.machine import StepResult
    from rfmstream.engine.core.views import Views, ViewsResult
    from rfmstream.engine.files.mapping import list_maps, load_map
    from rfmstream.engine.replay.replay import Outputs, ReplayResult, replay
    from rfmstream.engine.replay.views import ViewsReplay, replay_views
    from rfmstream.schemas.changes import CHANGE_SCHEMA
    from rfmstream.schemas.errors import ConfigError, InputError, RfmError, StateError, TransportError
    from rfmstream.schemas.mapping import InputMap
    from rfmstream.schemas.orders import ORDER_SCHEMA, REJECTED_SCHEMA
    from rfmstream.schemas.plan import Plan, View
    from rfmstream.schemas.plan_file import load_plan
    from rfmstream.schemas.ruleset import Ruleset, list_rulesets, load_ruleset
    from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA

    __version__: str

__all__ = [
    "CHANGE_SCHEMA",
    "ORDER_SCHEMA",
    "REJECTED_SCHEMA",
    "SNAPSHOT_SCHEMA",
    "ConfigError",
    "Counters",
    "Engine",
    "InputError",
    "InputMap",
    "Outputs",
    "Plan",
    "ReplayResult",
    "RfmError",
    "Ruleset",
    "StateError",
    "StepResult",
    "TransportError",
    "View",
    "Views",
    "ViewsReplay",
    "ViewsResult",
    "__version__",
    "list_maps",
    "list_rulesets",
    "load_map",
    "load_plan",
    "load_ruleset",
    "replay",
    "replay_views",
]

_HOMES: Final = {
    "rfmstream.engine.core.counters": ("Counters",),
    "rfmstream.engine.core.engine": ("Engine",),
    "rfmstream.engine.core.machine": ("StepResult",),
    "rfmstream.engine.core.views": ("Views", "ViewsResult"),
    "rfmstream.engine.files.mapping": ("list_maps", "load_map"),
    "rfmstream.engine.replay.replay": ("Outputs", "ReplayResult", "replay"),
    "rfmstream.engine.replay.views": ("ViewsReplay", "replay_views"),
    "rfmstream.schemas.changes": ("CHANGE_SCHEMA",),
    "rfmstream.schemas.errors": ("ConfigError", "InputError", "RfmError", "StateError", "TransportError"),
    "rfmstream.schemas.mapping": ("InputMap",),
    "rfmstream.schemas.orders": ("ORDER_SCHEMA", "REJECTED_SCHEMA"),
    "rfmstream.schemas.plan": ("Plan", "View"),
    "rfmstream.schemas.plan_file": ("load_plan",),
    "rfmstream.schemas.ruleset": ("Ruleset", "list_rulesets", "load_ruleset"),
    "rfmstream.schemas.snapshots": ("SNAPSHOT_SCHEMA",),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - costs as much as all the rest of this import

        return version("rfmstream")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
