"""Reading an SQL system: the source, and how far an INCREMENTAL read may go."""
