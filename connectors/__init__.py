"""What a source and a destination promise, and the connectors that ship with syncblocks."""

if __name__ != "syncblocks.connectors":  # else each error would be two classes
    raise ImportError("import syncblocks.connectors, not connectors")
