"""Rejected records: records that could not be stored and are kept beside their table."""
