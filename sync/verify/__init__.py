"""Compare source and destination, and repair the destination."""
