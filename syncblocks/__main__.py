"""`python -m syncblocks` is the command `syncblocks`."""

from syncblocks.sync.cli import main

main()
