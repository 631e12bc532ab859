"""The plan of a run: which streams, which columns, where each starts and how it is written. Pure."""
