"""A pipeline run from start to end."""
