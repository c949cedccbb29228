"""The command line: `rfmstream`. click and rich are imported here and nowhere else."""

from engine.cli.app import main

__all__ = ["main"]
