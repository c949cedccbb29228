"""Tables in and out: formats, input maps, sorting, writers."""
