"""Airbyte's sources without Docker: a process each, of a manifest or of a package."""
