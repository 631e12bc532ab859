"""Any other database, by its SQLAlchemy dialect, as a source and as a destination."""
