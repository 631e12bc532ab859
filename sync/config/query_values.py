"""Templates in a query: each becomes a parameter, whose value is bound and never becomes SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from .templates import TIMES, TemplateError, template_names
from .value_types import Moment

#: Begins the name of a parameter that stands for a template.
_PREFIX = "syncblocks_"
_TEMPLATE = re.compile(r"\{\{.*?\}\}", re.DOTALL)


class QueryValue(NamedTuple):
    """The value of one template in a query."""

    #: Of the parameter.
    name: str
    #: A text, a number, a boolean, None, or an aware moment.
    value: Any
    #: What says whether the query has changed: the value, or the template where each run has another.
    said: str
    #: Whether it is of a run's date or interval.
    is_of_time: bool


def query_values(query: str, fill: Callable[[str], Any]) -> tuple[str, tuple[QueryValue, ...]]:
    """Return a query with parameters in place of its templates, and their values.

    Args:
        query: as the pipeline file has it.
        fill: returns the value of one template.

    Raises:
        TemplateError: a template is wrong, or its value is none of a column.
    """
    found: list[QueryValue] = []

    def mark(match: re.Match[str]) -> str:
        name = f"{_PREFIX}{len(found) + 1}"
        found.append(_value_of(name, match[0], fill(match[0])))
        return f" :{name} "  # with blanks, so that no name before it swallows it

    text = _TEMPLATE.sub(mark, query)
    template_names(text)  # statements and comments of templates are refused
    return text, tuple(found)


def _value_of(name: str, template: str, value: Any) -> QueryValue:
    is_of_time = not TIMES.isdisjoint(template_names(template))
    if not isinstance(value, str | int | float | bool | None):
        raise TemplateError(f"{template} is a {type(value).__name__}: a query takes a text, a number, true or false")
    said = template if is_of_time else json.dumps(value)
    plain = datetime.fromisoformat(value) if isinstance(value, Moment) else value
    return QueryValue(name, str(plain) if isinstance(plain, str) else plain, said, is_of_time)
