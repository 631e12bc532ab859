"""The plan of a run: its streams, their columns, where each starts and how it is written. Pure."""
