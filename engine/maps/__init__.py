"""The input maps that are shipped: TOML files, read by `engine.ingest.mapping`; see docs/input-maps.md."""
