"""Mapped runs: `open_run` plans one, `sync_stream` runs one stream in its own process, `finish_run` ends the run."""
