"""The specification of a connector's config: check the config against it, and find its secrets. No value is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..errors import ConnectorConfigError
from ..programs.secrets import SECRET_CHARACTERS, secrets_in
from ..secret_texts import MIN_LENGTH
from ..settings import MAX_MISTAKES

#: What is told of a rule; others are too long.
_TOLD = frozenset(
    ["type", "pattern", "enum", "const", "format", "minimum", "maximum", "minLength", "maxLength", "minItems"]
)


def check_config(config: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Check a connector's config against its specification.

    Raises:
        ConnectorConfigError: all that is wrong, each by its key.
    """
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import Draft7Validator, validator_for

    kind = validator_for(spec, default=Draft7Validator)
    try:
        kind.check_schema(spec)
    except SchemaError as error:
        raise ConnectorConfigError(
            f"the connector's specification is no JSON Schema at {'.'.join(map(str, error.absolute_path))!r}",
            connector="airbyte",
        ) from None
    found = sorted(kind(spec).iter_errors(dict(config)), key=lambda error: [*map(str, error.absolute_path)])
    mistakes = [_mistake(best_match([error]) or error) for error in found[:MAX_MISTAKES]]
    if mistakes:
        first, *others = mistakes
        first.others = tuple(others)
        raise first


def _mistake(error: Any) -> ConnectorConfigError:
    path = ["config", *map(str, error.absolute_path)]
    if error.validator == "required":
        missing = next((each for each in error.validator_value if each not in error.instance), "")
        path, reason = [*path, str(missing)], "is required"
    elif error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        strange = sorted(set(error.instance) - set(known))
        path, reason = [*path, *strange[:1]], f"is unknown; known: {', '.join(map(str, known))}"
    else:
        rule = f": {error.validator_value}" if error.validator in _TOLD else ""
        reason = f"does not fit `{error.validator}{rule}` of the connector's specification"
    key = ".".join(path)
    return ConnectorConfigError(f"config of connector 'airbyte': {key}: {reason}", connector="airbyte", key=key)


def secrets_of(config: Any, spec: Any, env: Mapping[str, str]) -> list[str]:
    """Return what is masked: fields that are `airbyte_secret`, and all variables.

    Without a specification texts are masked that look like secrets by their keys.
    """
    own = [value for value in env.values() if len(value) >= SECRET_CHARACTERS]
    return spelled([*(declared_secrets(config, spec) if spec else secrets_in(config)), *own])


def spelled(secrets: Sequence[str]) -> list[str]:
    """Return secrets in the spellings in which programs show them: as JSON, in a URL, line by line."""
    found: dict[str, None] = {}
    for secret in secrets:
        for text in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe=""), *secret.split("\n")):
            found[text] = None
    return [text for text in found if text.strip()]


def declared_secrets(config: Any, spec: Any) -> list[str]:
    """Return the texts of a config in fields that its specification marks as `airbyte_secret`."""
    return list(dict.fromkeys(text for _, text in _declared(config, spec, "config")))


def short_secrets(config: Any, spec: Any) -> list[str]:
    """Return the keys of the secrets that are too short to be masked."""
    declared = _declared(config, spec, "config")
    return list(dict.fromkeys(key for key, text in declared if 0 < len(text.strip()) < MIN_LENGTH))


def _declared(value: Any, spec: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the key and the text of each declared secret."""
    if not isinstance(spec, Mapping):
        return
    if spec.get("airbyte_secret") is True:
        for text in texts(value):
            yield key, text
    for kind in ("oneOf", "anyOf", "allOf"):
        for option in spec.get(kind) or ():
            yield from _declared(value, option, key)
    if isinstance(value, Mapping):
        properties = spec.get("properties")
        for name, inner in value.items():
            known = properties.get(name) if isinstance(properties, Mapping) else None
            yield from _declared(inner, known or spec.get("additionalProperties"), f"{key}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _declared(inner, spec.get("items"), f"{key}.{number}")


def texts(value: Any) -> Iterator[str]:
    """Yield all texts and numbers of a JSON value."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
