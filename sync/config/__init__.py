"""The pipeline file: its settings, and how it is loaded."""

from .blocks import CallbackBlock, StreamEntry
from .globs import exact_name, exact_pattern, glob_matches, is_glob, matcher, matches_any
from .json_schema import pipeline_json_schema
from .load import (
    config_error_from_connector,
    load_pipeline,
    put_at_its_place,
    render_destination_table,
    resolve_references,
    settings_scope,
)
from .pipeline import Pipeline

__all__ = [
    "CallbackBlock",
    "Pipeline",
    "StreamEntry",
    "config_error_from_connector",
    "exact_name",
    "exact_pattern",
    "glob_matches",
    "is_glob",
    "load_pipeline",
    "matcher",
    "matches_any",
    "pipeline_json_schema",
    "put_at_its_place",
    "render_destination_table",
    "resolve_references",
    "settings_scope",
]
