"""INCREMENTAL reads: bookmarks, checkpoints, and hashes of the records at a bookmark."""
