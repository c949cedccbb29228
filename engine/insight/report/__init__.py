"""The report: numbers first, from files of changes, of a snapshot and of orders; pictures are made of them after."""
