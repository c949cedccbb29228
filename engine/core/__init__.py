"""The deterministic machine: orders and instants in, tier changes out. No clock, no files but the checkpoint's."""
