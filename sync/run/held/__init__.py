"""Held runs: `open_run` plans one, `sync_stream` runs a stream of it in a process of its own, `finish_run` ends it."""
