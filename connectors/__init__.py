"""What a source and a destination promise, and the connectors that ship with syncblocks."""
