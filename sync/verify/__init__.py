"""Comparing both sides, and repairing the destination."""
