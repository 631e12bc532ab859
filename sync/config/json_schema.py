"""The JSON Schema of the pipeline file, for editors."""

from __future__ import annotations

from typing import Any

from .expect import ExpectSettings, RowsSettings
from .pipeline import Pipeline
from .run_retention import HistorySettings
from .schedule import ScheduleSettings

_TEMPLATE = {"type": "string", "pattern": r"\{\{", "description": "A template: {{ env_var('X') }}"}
#: Settings without templates.
_PLAIN = (ScheduleSettings.__name__, ExpectSettings.__name__, RowsSettings.__name__, HistorySettings.__name__)
_NOT_TEXT = ("integer", "number", "boolean")


def pipeline_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a pipeline file."""
    schema = Pipeline.model_json_schema()
    definitions = {
        name: value if name in _PLAIN else _with_templates(value) for name, value in schema.pop("$defs", {}).items()
    }
    schema = _with_templates(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "syncblocks pipeline"
    schema["properties"]["streams"]["minItems"] = 1
    schema["$defs"] = definitions
    executor = schema["properties"]["executor"]
    executor["anyOf"] = [{"const": "threads"}, {"$ref": executor.pop("$ref")}]
    hooks = definitions["CallbackBlock"]["properties"]
    hooks["sql"]["anyOf"].insert(0, {"type": "string"})
    hooks["shell"]["anyOf"][:0] = definitions["ShellSettings"]["properties"]["command"]["anyOf"]
    _allow_null(schema)
    for name, definition in definitions.items():
        if name not in ("StreamEntry", "Columns"):
            _allow_null(definition)
    return schema


def _with_templates(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow a template in place of a number, a boolean or an enum value."""
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: _with_templates(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties", "propertyNames") and isinstance(value, dict):
            found[key] = _with_templates(value)
        elif key == "anyOf":
            found[key] = [_with_templates(item) for item in value]
        else:
            found[key] = value
    if found.get("type") in _NOT_TEXT or "enum" in found or "const" in found:
        about: dict[str, Any] = {key: found.pop(key) for key in ("title", "description", "default") if key in found}
        return {**about, "anyOf": [found, dict(_TEMPLATE)]}
    return found


def _allow_null(schema: dict[str, Any]) -> None:
    """Allow null for keys that are not required: an empty key has its default."""
    for name, value in schema["properties"].items():
        if name in schema.get("required", ()) or {"type": "null"} in value.get("anyOf", ()):
            continue
        about: dict[str, Any] = {key: value.pop(key) for key in ("title", "description", "default") if key in value}
        schema["properties"][name] = {**about, "anyOf": [*value.pop("anyOf", [value]), {"type": "null"}]}
