"""The engine: a deterministic core, and the adapters around it; docs/architecture.md is the map of its rooms."""
