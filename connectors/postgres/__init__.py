"""PostgreSQL: Arrow through ADBC and COPY, raw COPY from server to server, one transaction a commit."""
