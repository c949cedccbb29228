"""Order history from files and tables: reading, mapping, checking, sorting."""

from engine.ingest.mapping import InputMap, list_maps, load_map
from engine.ingest.normalise import normalise
from engine.ingest.source import OrderStream, Progress, open_orders

__all__ = ["InputMap", "OrderStream", "Progress", "list_maps", "load_map", "normalise", "open_orders"]
