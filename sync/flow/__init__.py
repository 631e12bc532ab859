"""Batches on their way from a source to a destination: read-ahead, transformers, spool, memory."""
