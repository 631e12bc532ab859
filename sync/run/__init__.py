"""A pipeline run from its start to its end."""
