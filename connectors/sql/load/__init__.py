"""One load of an SQL system: staging table, append, merge and replace, ledger row, rejected records."""
