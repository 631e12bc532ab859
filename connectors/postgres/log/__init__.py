"""PostgreSQL's own log, read through a logical replication slot."""
