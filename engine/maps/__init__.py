"""The input maps that are shipped: TOML files read by `engine.ingest.mapping`, described in docs/input-maps.md."""
