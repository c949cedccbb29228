"""A checkpoint: the whole state of a machine in a directory, and the machine built again from it.

A checkpoint is a manifest and, for each shard, two Arrow IPC files: its customers and its entries (orders and the other
events that must be remembered), in order of their handles. Hash tables and timers follow from them and are built anew.
Files of a new checkpoint get new names; the checkpoint becomes the present one when its manifest is renamed over the
old one, so a crash at any moment leaves one whole checkpoint. The format is described in docs/formats.md.

    folder    the directory: whose it is, which files are ours, what forces them to the disk
    manifest  the file that says what belongs to the checkpoint, and its versions
    columns   the columns of each record, and the defaults of those that an older program did not write
    write     from a machine to a directory
    read      from a directory to a machine, with what is verified on the way
    views     several machines in one directory, a folder each
    populations  what a view of populations has besides
"""
