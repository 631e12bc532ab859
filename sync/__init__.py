"""The engine: pipelines, runs, the run store and the command line."""

if __name__ != "syncblocks.sync":  # else its errors would be two classes each, and `except` would miss one of them
    raise ImportError("import syncblocks.sync, not sync")
