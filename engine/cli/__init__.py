"""The command line: `rfmstream`. click and rich are imported here and nowhere else."""

from rfmstream.engine.cli.app import main

__all__ = ["main"]
