"""Order history in, every tier change out: replay, its summary, timelines, synthetic histories."""
