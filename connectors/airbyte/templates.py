"""Templates of a manifest that need only the connector's config. The CDK fills in all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Parts of a template that need little time and memory. Names, calls and filters are checked separately.
_PARTS = frozenset(
    {
        "Template",
        "Output",
        "TemplateData",
        "Const",
        "Getitem",
        "Getattr",
        "Or",
        "And",
        "Not",
        "CondExpr",
        "Compare",
        "Operand",
    }
)
_FILTERS = frozenset({"default", "d", "int"})


def filled_in(text: str, config: Mapping[str, Any]) -> str | None:
    """Return a text with its templates filled in; `None` if that needs the CDK."""
    if "{%" not in text and "{{" not in text:
        return text
    from jinja2 import TemplateError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment()
    try:
        parts = list(environment.parse(text).find_all(nodes.Node))
        if not all(map(_is_simple, parts)):
            return None
        return environment.from_string(text).render(config=config)
    except (TemplateError, TypeError, ValueError, RecursionError):
        return None


def _is_simple(part: Any) -> bool:
    kind = type(part).__name__
    if kind == "Name":
        return bool(part.name == "config")
    if kind == "Call":  # `config.get(...)`
        return type(part.node).__name__ == "Getattr" and part.node.attr == "get"
    return kind in _PARTS or (kind == "Filter" and part.name in _FILTERS)
