"""What a dead process has left: its runs, streams, staging and ranges. The ledger decides, after a token fenced it."""
