"""Types of values in the pipeline file, and how they may be written."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from syncblocks.connectors.named_parameters import without_end

from .base import wrong
from .globs import glob_error

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]?)(i?)B?")
_DAY_S = 86_400
#: Most levels of objects that become columns.
MOST_LEVELS = 16
#: A span of time: days, hours, minutes, seconds.
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_PERCENT = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]+)?)\s*%\s*")
#: Most records that a stream may reject.
MOST_REJECTED = 1_000_000
#: Smallest `memory`, in bytes.
MIN_MEMORY = 64_000_000


class Rendered(str):
    """Text from a template; it may stand for a number or a boolean."""

    __slots__ = ()


class Moment(Rendered):
    """Text of `{{ execution_date }}` or an end of the interval alone: a time in UTC, not a text that looks like one."""

    __slots__ = ()


def span_s(text: str) -> float | None:
    """Return the seconds of `1d12h`; None: it is no span of time."""
    parts = _SPAN.fullmatch(text.strip().lower())
    if parts is None or not any(parts.groups()):
        return None
    return sum(float(part or 0) * unit for part, unit in zip(parts.groups(), (_DAY_S, 3600, 60, 1), strict=True))


def is_span(value: Any, shortest_s: float, longest_s: float) -> bool:
    """Whether a value is a span of whole seconds within limits."""
    seconds = span_s(value) if isinstance(value, str) and len(value) < 40 else None
    return seconds is not None and seconds == int(seconds) and shortest_s <= seconds <= longest_s


def as_number(value: Any) -> Any:
    """Return the number that a text of a template stands for; all else as it is."""
    if isinstance(value, Rendered):
        text = value.strip()
        if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            return int(text)
        if re.fullmatch(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}", text):
            return float(text)
    return value


def _boolean(value: Any) -> Any:
    if isinstance(value, Rendered):
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    return value


def _levels(value: Any) -> Any:
    """Return down to how many levels objects become columns: of `text` 0, of `{flatten: N}` N."""
    levels = value.get("flatten") if isinstance(value, dict) and value.keys() == {"flatten"} else None
    levels = as_number(levels)
    if isinstance(levels, int) and not isinstance(levels, bool) and 1 <= levels <= MOST_LEVELS:
        return levels
    if isinstance(value, str) and value.strip() == "text":
        return 0
    raise wrong(f"must be text, or {{flatten: N}} with N from 1 to {MOST_LEVELS}")


def _filled(value: str) -> str:
    if not value.strip():
        raise wrong("is empty")
    # No longer a `Rendered`: drivers and serializers need a plain str.
    return str(value)


def _statement(value: str) -> str:
    return without_end(value.strip())


def _pattern(value: str) -> str:
    error = glob_error(value)
    if error is not None:
        raise wrong(f"is not a valid pattern: {error}")
    return value


def as_list(value: Any) -> Any:
    """Convert a list to a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    seen: set[str] = set()
    for place, value in enumerate(values):
        if value in seen:
            raise wrong(f"item {place + 1} is there twice")
        seen.add(value)
    return values


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise wrong("is an empty list: name something, or leave the key out")
    return values


def _concurrency(value: Any) -> Any:
    value = as_number(value)
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000):
        return "auto" if value == "auto" else value
    raise wrong("must be auto or a whole number from 1 to 1000")


def _size(value: Any) -> Any:
    value = as_number(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) and len(value) < 40 else None
    if match is None:
        raise wrong("must be a size such as 2GB, 500MB, 1.5GiB, or a number of bytes")
    number, prefix, binary = match.groups()
    factor = (1024 if binary else 1000) ** " kMGT".index("k" if prefix == "K" else prefix or " ")
    size_bytes = int(float(number) * factor)
    if size_bytes >= 2**63:
        raise wrong("is too large")
    return size_bytes


def _memory(value: Any) -> Any:
    size_bytes = _size(value)
    if size_bytes < MIN_MEMORY:
        raise wrong("must be at least 64MB, which the batches of one stream need")
    return size_bytes


def percent_of(value: Any) -> float | None:
    """Return the number of a text such as `5%`, up to 100; `None` for any other value."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return None if found is None or float(found[1]) > 100 else float(found[1])


def _rejected_limit(value: Any) -> int | str:
    value = as_number(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_REJECTED:
        return value
    if percent_of(value) is not None:
        return str(value)
    raise wrong(f"must be a number of records up to {MOST_REJECTED:,}, or a share of a commit's records such as 5%")


Name = Annotated[str, AfterValidator(_filled)]
Query = Annotated[Name, AfterValidator(_statement)]
Pattern = Annotated[Name, AfterValidator(_pattern)]
Names = Annotated[tuple[Name, ...], BeforeValidator(as_list), AfterValidator(_unique)]
SomeNames = Annotated[Names, AfterValidator(_not_empty)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(as_list), AfterValidator(_unique), AfterValidator(_not_empty)]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
Count = Annotated[int, BeforeValidator(as_number), Field(ge=0, le=1000)]
RecordCount = Annotated[int, BeforeValidator(as_number), Field(ge=1, lt=2**63)]
Attempts = Annotated[int, BeforeValidator(as_number), Field(ge=1, le=1000)]
Readers = Annotated[int, BeforeValidator(as_number), Field(ge=1, le=64)]
AtOnce = Annotated[int, BeforeValidator(as_number), Field(ge=1, le=1000)]
Delay = Annotated[float, BeforeValidator(as_number), Field(ge=0, le=_DAY_S)]
#: A number of records, or a share of a commit's records such as `5%`.
RejectedLimit = Annotated[
    int | str,
    PlainValidator(_rejected_limit),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": MOST_REJECTED}, {"type": "string"}]}),
]
Lookback = Annotated[int | float, BeforeValidator(as_number), Field(gt=0, lt=2**63, allow_inf_nan=False)]
Timeout = Annotated[float, BeforeValidator(as_number), Field(gt=0, le=7 * _DAY_S)]


def _operators(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise wrong('must be a mapping of bookmark_properties to ">=" or ">"')
    for column, operator in value.items():
        if operator not in (">=", ">"):
            raise wrong(
                f'column {column!r}: a bookmark takes only ">=" (default) or ">"; `where:` takes the other '
                "operators, and filters by any column"
            )
    return {str(column): str(operator) for column, operator in value.items()}


def _start(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise wrong("must be one value of the first bookmark property, such as '2024-01-01' or 0")
    return str(value) if isinstance(value, str) else value


BookmarkStart = Annotated[str | int | float, PlainValidator(_start), WithJsonSchema({"type": ["string", "number"]})]
BookmarkOperators = Annotated[
    dict[str, str],
    PlainValidator(_operators),
    WithJsonSchema({"type": "object", "additionalProperties": {"enum": [">=", ">"]}, "minProperties": 1}),
]
Nested = Annotated[
    int,
    PlainValidator(_levels),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "text"},
                {
                    "type": "object",
                    "properties": {"flatten": {"type": "integer", "minimum": 1, "maximum": MOST_LEVELS}},
                    "required": ["flatten"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
Concurrency = Annotated[
    int | Literal["auto"],
    PlainValidator(_concurrency),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 1000}]}),
]
Size = Annotated[
    int,
    PlainValidator(_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": rf"^\s*{_SIZE.pattern}\s*$"}]}
    ),
]
Memory = Annotated[
    int,
    PlainValidator(_memory),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": MIN_MEMORY},
                {"type": "string", "pattern": rf"^\s*{_SIZE.pattern}\s*$"},
            ]
        }
    ),
]
