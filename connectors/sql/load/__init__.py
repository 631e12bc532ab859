"""One load into an SQL system: staging table, append, merge, replace, ledger row and rejected records."""
