"""The settings of connectors as the config of a Singer plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.plugin_base import JSONSchemaValidator, PluginBase

from ..registry import connector_class, names, settings_model


def config_jsonschema(connector: str, role: str) -> dict[str, Any]:
    """Return the JSON Schema of a connector's settings, flat as Singer's tools expect it."""
    model = settings_model(connector, role)
    if model is None:
        return {"type": "object", "properties": {}}
    schema = model.model_json_schema(by_alias=True)
    found = schema.get("$defs", {})
    properties = {name: _flat(_inlined(spec, found)) for name, spec in schema.get("properties", {}).items()}
    required = {"required": schema["required"]} if schema.get("required") else {}
    return {"type": "object", "properties": properties, **required}


def connector_config(connector: str, role: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the connector's part of a plugin's config, without the settings of singer-sdk."""
    model = settings_model(connector, role)
    if model is None:
        return dict(config)
    known = {field.alias or name for name, field in model.model_fields.items()}
    return {name: value for name, value in config.items() if name in known}


def make_connector(connector: str, role: str, config: Mapping[str, Any]) -> Any:
    """Make the connector; relative paths count from the current folder."""
    return connector_class(connector, role)(connector_config(connector, role, config), Path.cwd())


def plugins(role: str) -> list[str]:
    """Return the connectors that can be Singer plugins: all but those that run programs of others."""
    return [name for name in names(role) if name not in ("airbyte", "singer")]


class ConfigWithoutValues(PluginBase):
    """A plugin whose errors about its config show no values, which may be passwords."""

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        try:
            return super()._validate_config(raise_errors=raise_errors)
        except ConfigValidationError as error:
            found = JSONSchemaValidator(error.schema).iter_errors(self._config)
            raise ConfigValidationError(str(error), errors=list(map(_mistake, found)), schema=error.schema) from None


def _mistake(error: Any) -> str:
    """Describe a mistake by its place and by what would be right; only these messages name keys alone."""
    if error.validator in ("required", "additionalProperties"):
        return str(error.message)
    place = ".".join(map(str, error.absolute_path)) or "the config"
    return f"{place} does not fit `{error.validator}: {error.validator_value}`"


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """Replace references by their definitions: tools read each property alone."""
    if isinstance(value, list):
        return [_inlined(part, definitions) for part in value]
    if not isinstance(value, Mapping):
        return value
    plain = {key: _inlined(part, definitions) for key, part in value.items() if key != "$ref"}
    if "$ref" in value:
        plain = {**_inlined(definitions[value["$ref"].rpartition("/")[2]], definitions), **plain}
    return plain


def _flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Write `anyOf` with null as two types, drop empty defaults, mark secrets as Meltano does."""
    flat = {key: part for key, part in spec.items() if key not in ("anyOf", "title", "format", "writeOnly")}
    options = spec.get("anyOf", [])
    real = [_flat(option) for option in options if option.get("type") != "null"]
    if len(real) == 1:
        kind = real[0].get("type")
        flat = {**real[0], **flat}
        if isinstance(kind, str) and len(options) > 1:
            flat["type"] = [kind, "null"]
    elif real:
        flat["anyOf"] = options
    if flat.get("default", ...) is None:
        del flat["default"]
    if any(part.get("format") == "password" for part in (spec, *options)):
        flat |= {"secret": True, "writeOnly": True}
    return flat


__all__ = ["ConfigWithoutValues", "config_jsonschema", "connector_config", "make_connector", "plugins"]
