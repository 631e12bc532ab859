"""The pipeline file: what it may say, and loading it."""

from .document import Loc
from .globs import glob_matches, is_glob
from .load import (
    config_error_from_connector,
    load_pipeline,
    render_destination_table,
    resolve_references,
    settings_scope,
)
from .models import (
    RESERVED_PARENTS,
    CallbackBlock,
    Columns,
    DestinationBlock,
    Pipeline,
    SourceBlock,
    StreamEntry,
    TransformerBlock,
)
from .schema import pipeline_json_schema

__all__ = [
    "RESERVED_PARENTS",
    "CallbackBlock",
    "Columns",
    "DestinationBlock",
    "Loc",
    "Pipeline",
    "SourceBlock",
    "StreamEntry",
    "TransformerBlock",
    "config_error_from_connector",
    "glob_matches",
    "is_glob",
    "load_pipeline",
    "pipeline_json_schema",
    "render_destination_table",
    "resolve_references",
    "settings_scope",
]
