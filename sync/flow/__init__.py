"""Batches between source and destination: read-ahead, transformers, spool files, memory limits."""
