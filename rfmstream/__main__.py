"""`python -m rfmstream`: the command line, for where no script is on the path."""

from rfmstream.engine.cli import main

main()
