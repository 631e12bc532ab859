"""PostgreSQL: Arrow through ADBC and COPY, raw COPY between servers, one transaction for each commit."""
