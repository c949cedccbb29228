"""What every long-running process has: its status pages, and the way to its brokers."""
