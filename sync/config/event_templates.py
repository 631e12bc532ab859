"""Templates and conditions over an event: checked when the file is loaded, filled in when a callback is called.

The sandbox is that of the file's own templates; the names are the keyword arguments of callbacks. `error` stands for
`__error`; `status` and `duration_s` are added. A value that an event does not have is None, shown as an empty text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from syncblocks.callbacks.kwargs import (
    RESERVED,
    STATUSES_WITH_ERROR,
    BlockRun,
    PipelineRun,
    fillable,
    hydrate,
)

from .templates import (
    DEFAULTS,
    FUNCTIONS,
    HARMLESS,
    NOT_FILLED,
    PIPELINE_ATTRIBUTES,
    Parsed,
    TemplateError,
    TemplateFunctions,
    TemplateValues,
    Vocabulary,
    parse,
    sandbox,
    text_filters,
)

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

#: Names in addition to the keyword arguments of functions.
ADDED = ("status", "duration_s", "error")

#: Objects and their allowed attributes. `variables('x')` replaces `pipeline_run.variables`.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "pipeline": PIPELINE_ATTRIBUTES,
    "block_run": tuple(item.name for item in fields(BlockRun)),
    "pipeline_run": tuple(item.name for item in fields(PipelineRun) if item.name != "variables"),
    "error": ("type", "message", "traceback", "stream", "block"),
    "totals": ("streams", "success", "failure", "cancelled", "rows", "bytes"),
    "retry": ("attempts",),
}
_BRACED = re.compile(r"\{\{[-+]?(.*?)-?\}\}", re.DOTALL)
_MAX_DIGITS = 6
#: Keyword arguments that only functions get.
_NOT_IN_TEMPLATES = frozenset({"__input", "__error", "configuration", "logger"})
_UNITS = ("B", "kB", "MB", "GB", "TB")


def vocabulary(*, statuses: Collection[str], parents: Collection[str], variables: Iterable[str]) -> Vocabulary:
    """Return the names that the templates of one callback block may use.

    Args:
        statuses: statuses for which the block is called.
        parents: its `on`.
        variables: names of the pipeline's runtime variables.
    """
    own = fillable(statuses=frozenset(statuses), parents=frozenset(parents)) - _NOT_IN_TEMPLATES
    added = {"status", "duration_s"} | ({"error"} if STATUSES_WITH_ERROR & set(statuses) else set())
    defaults = {name for name in DEFAULTS if name != "stream"}
    names = own | added | defaults | (set(variables) - RESERVED - set(FUNCTIONS))
    return Vocabulary(
        names=tuple(sorted(names)),
        attributes=tuple((name, known) for name, known in ATTRIBUTES.items() if name in names),
        whole=frozenset({"error"}),
        filters=tuple(_FILTERS),
        nodes=(*HARMLESS, "List", "Tuple", "Neg"),
    )


def parse_condition(text: str, known: Vocabulary) -> Parsed:
    """Check a condition: one expression, with or without `{{ }}` around it.

    Raises:
        TemplateError: it is not one expression.
    """
    found = parse("{{ " + _bare(text) + " }}", known)
    if not found.is_lone:
        raise TemplateError("must be one condition, such as is_last_block_run or block_run.rows == 0")
    return found


class Filled(NamedTuple):
    """A template filled in, and the values of its secret() and env_var()."""

    value: Any
    secrets: frozenset[str]
    environment: frozenset[str]


def event_values(recorded: Mapping[str, Any], status: str, *, env: str) -> dict[str, Any]:
    """Return the values of all names that a template may use.

    Args:
        recorded: keyword arguments of the event, with the values of runtime variables.
        status: status of the event.
        env: value of `env`.
    """
    kwargs = hydrate(recorded)
    values: dict[str, Any] = dict.fromkeys(RESERVED - _NOT_IN_TEMPLATES)
    values |= dict.fromkeys(("block_run", "totals", "error"), _NOTHING)
    values |= {name: value for name, value in kwargs.items() if name not in _NOT_IN_TEMPLATES and value is not None}
    name = kwargs["pipeline_uuid"]
    values |= {"pipeline": {"name": name, "uuid": name}, "env": env, "status": status, "duration_s": duration_s(kwargs)}
    values["error"] = kwargs.get("__error", _NOTHING)
    return values


def duration_s(kwargs: Mapping[str, Any]) -> float | None:
    """Return the seconds of the block run or of the run's attempt; None if it has not ended."""
    if kwargs.get("block_run") is not None:
        start, end = kwargs["block_run"].started_at, kwargs["block_run"].ended_at
    else:
        start = kwargs["pipeline_run"].started_at
        ends = [run.ended_at for run in kwargs.get("block_runs", ()) if run.ended_at is not None]
        end = max(ends, default=None)
    return None if start is None or end is None else round(max(0.0, (end - start).total_seconds()), 3)


def fill(text: str, values: Mapping[str, Any], known: Vocabulary, scope: TemplateValues) -> Filled:
    """Fill in a template; a single expression keeps the type of its value.

    Raises:
        TemplateError: a name has no value, or a value of the wrong type. Shows no value.
    """
    if parse(text, known).is_lone:
        return _evaluate(_bare(text), values, scope)
    functions = TemplateFunctions(scope)
    return _run(lambda: _environment().from_string(text).render({**values, **functions.by_name()}), functions)


def is_true(text: str, values: Mapping[str, Any], known: Vocabulary, scope: TemplateValues) -> bool:
    """Tell whether a condition is true for an event.

    Raises:
        TemplateError: see `fill`.
    """
    parse_condition(text, known)
    return bool(_evaluate(_bare(text), values, scope).value)


def shown(value: Any) -> str:
    """Return a value as text for a message: empty for None, JSON for lists and mappings."""
    if value is None or value is _NOTHING:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def size_text(value: Any) -> str:
    """Return a number of bytes as text: 1.2 MB."""
    size = float(value)
    place = 0
    while size >= 1000 and place < len(_UNITS) - 1:
        size /= 1000
        place += 1
    return f"{size:.0f} B" if not place else f"{size:.1f} {_UNITS[place]}"


def duration_text(value: Any) -> str:
    """Return seconds as text: 4.2 s, 3 min 20 s, 2 h 5 min."""
    seconds = float(value)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class _Nothing:
    """A value that the event does not have: false, shown as an empty text; its attributes are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)

    def __bool__(self) -> bool:
        return False


_NOTHING = _Nothing()


def _bare(text: str) -> str:
    """Return an expression without its braces (and Jinja's whitespace marks)."""
    braced = _BRACED.fullmatch(text.strip())
    return braced[1] if braced else text.strip()


def _evaluate(expression: str, values: Mapping[str, Any], scope: TemplateValues) -> Filled:
    functions = TemplateFunctions(scope)
    filled = _run(lambda: _compiled(expression)(**{**values, **functions.by_name()}), functions)
    return filled._replace(value=None) if filled.value is _NOTHING else filled


@lru_cache(maxsize=256)
def _compiled(expression: str) -> Any:
    return _environment().compile_expression(expression, undefined_to_none=False)


def _run(call: Any, functions: TemplateFunctions) -> Filled:
    from jinja2 import TemplateError as EngineError

    try:
        value = call()
    except TemplateError:
        raise
    except (EngineError, *NOT_FILLED) as error:
        # Without the cause, whose text may contain a value.
        raise TemplateError(f"cannot be filled ({type(error).__name__}): check what is compared or formatted") from None
    return Filled(value=value, secrets=frozenset(functions.secrets), environment=frozenset(functions.environment))


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    return sandbox(shown, _FILTERS)


def _number(value: Any, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{min(max(int(digits), 0), _MAX_DIGITS)}f}"


def _joined(values: Any) -> str:
    items = values if isinstance(values, list | tuple) else [values]
    return ", ".join(shown(item.get("stream", item) if isinstance(item, dict) else item) for item in items)


_FILTERS: dict[str, Any] = {
    **text_filters(shown),
    # 1,234,567; a number of digits after the point may be given.
    "number": _number,
    "bytes": lambda value: "" if value is None else size_text(value),
    "duration": lambda value: "" if value is None else duration_text(value),
    # A list; of `failed_streams` the names.
    "join": _joined,
}
