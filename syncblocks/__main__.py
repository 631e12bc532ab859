"""`python -m syncblocks` is the command `syncblocks`."""

from .sync.cli import main

main()
