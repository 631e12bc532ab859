"""INCREMENTAL reads: bookmarks, checkpoints, ranges, and hashes of records."""
