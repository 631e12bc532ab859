"""Other systems' projects as pipeline files."""
