"""docs/deliver.md says what there is."""

from pathlib import Path

from rfmstream.engine.deliver.config import _COMMON, _FILTERS, _OF_KIND
from rfmstream.engine.deliver.delivery_map import list_delivery_maps
from rfmstream.engine.deliver.metrics import delivery_metrics_reference
from rfmstream.engine.deliver.template import _FILTERS as TEXT_FILTERS

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "deliver.md").read_text(encoding="utf-8")


def test_every_key_map_filter_and_metric_is_there() -> None:
    keys = [*_COMMON, *(key for keys in _OF_KIND.values() for key in keys), *_FILTERS, *TEXT_FILTERS]
    assert [key for key in keys if f"`{key}`" not in TEXT] == []
    assert [name for name in list_delivery_maps() if f"| `{name}` |" not in TEXT] == []
    assert delivery_metrics_reference() in TEXT
