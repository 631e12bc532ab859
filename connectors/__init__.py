"""What a source and a destination promise, and the connectors that ship with syncblocks."""

if __name__ != "syncblocks.connectors":  # else its errors would be two classes each
    raise ImportError("import syncblocks.connectors, not connectors")
