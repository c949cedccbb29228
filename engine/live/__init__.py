"""The live worker: order events from a log's partitions, tier changes out, exactly once."""
