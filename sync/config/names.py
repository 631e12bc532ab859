"""What a pipeline file says of its streams, without a look at anything else in it: no secret is read for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .current_folder import absolute
from .load import load_pipeline
from .mapping_document import mapping_document
from .pipeline import Pipeline
from .templates import UNSTORED, TemplateError, has_template, template_names
from .yaml_document import key_of, read_document

#: Of the file, what says which streams there are.
_KEPT = ("pipeline", "catalog", "verify")
#: Of an entry of `streams`.
_OF_STREAM = ("stream", "selected", "tags", "verify", "query")
#: Says that an entry has checks; their values may be templates.
_SOME_CHECK = {"column": {"is_null": False}}
#: Stands where the file names systems that nothing here asks.
_NOBODY = {"connector": "memory"}


def load_names(
    given: str | os.PathLike[str] | Mapping[str, Any], *, folder: str | os.PathLike[str] | None = None
) -> Pipeline:
    """Load the part of a pipeline that names its streams: for programs that list them, and run nothing.

    Source, destination, run store, transformers and callbacks are not those of the file, and their templates are not
    filled in: the environment may lack what a run needs.

    Args:
        given: the pipeline file, or what it would hold.
        folder: of a mapping: where the catalog file is; default: the current folder.

    Raises:
        ConfigError: that part is wrong, or uses a variable that is a secret.
    """
    document = mapping_document(given) if isinstance(given, Mapping) else read_document(Path(given))
    home = absolute(Path(folder or "")) if isinstance(given, Mapping) else absolute(Path(given)).parent
    value = document.value
    entries, variables = value.get("streams"), value.get("variables")
    named = {key: value[key] for key in _KEPT if key in value}
    named.setdefault("pipeline", None if document.path is None else Path(document.path).stem)
    named["streams"] = [_reduced(entry) for entry in entries] if isinstance(entries, list) else entries
    if isinstance(variables, dict):
        named["variables"] = {name: each for name, each in variables.items() if not _is_unstored(each)}
    try:
        return load_pipeline({**named, "source": _NOBODY, "destination": _NOBODY}, folder=home)
    except ConfigError as error:
        for each in (error, *error.others):
            lines = (line for loc, line in document.lines.items() if key_of(loc) == each.key)
            each.path, each.line = document.path, next(lines, None)
        raise


def _reduced(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    kept = {key: entry[key] for key in _OF_STREAM if key in entry}
    return {**kept, "checks": _SOME_CHECK} if entry.get("checks") else kept


def _is_unstored(value: Any) -> bool:
    """Tell whether a variable's value comes from the environment or a store of secrets."""
    if isinstance(value, dict):
        return any(map(_is_unstored, value.values()))
    if isinstance(value, list):
        return any(map(_is_unstored, value))
    try:
        return isinstance(value, str) and has_template(value) and bool(template_names(value) & UNSTORED)
    except TemplateError:
        return False
