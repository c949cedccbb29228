"""Insight: what is made of tier changes, signals, snapshots and orders, never of an engine's state."""
