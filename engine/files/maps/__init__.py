"""The input maps that are shipped: TOML files, read by `engine.files.mapping`; see docs/input-maps.md."""
