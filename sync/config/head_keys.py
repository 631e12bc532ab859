"""The keys of a pipeline file that are read without the rest: by `schedule next`, and by a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from .base import Defaulting, Model, wrong
from .expect import NEEDS_SCHEDULE, ExpectSettings
from .run_retention import HistorySettings
from .schedule import ScheduleSettings
from .templates import has_template
from .value_types import Name, Names, Pattern
from .yaml_document import Loc

#: Environment variable with the URL of the run store of files that say none; without it they have the default one.
STORE_VARIABLE = "SYNCBLOCKS_STORE"
DEFAULT_STORE = "sqlite:///.syncblocks/store.db"


def _address(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise wrong("must be a URL: https://...")
    return value


class HeadKeys(Defaulting):
    """The keys; of them only `store` takes a template."""

    pipeline: Name = Field(default="", description="pipeline_uuid; default: the file's stem.")
    schedule: ScheduleSettings | None = Field(default=None, description="When the pipeline is due.")
    expect: ExpectSettings | None = Field(
        default=None, description="When the pipeline is late, and when it has moved too few records."
    )
    history: HistorySettings | None = Field(
        default=None, description="Which runs the run store keeps; default: all of them."
    )
    owner: Name | None = Field(default=None, description="Who answers for the pipeline.")
    tags: Names = Field(default=(), description="Words by which the pipeline is found among others.")
    runbook: Annotated[Name, AfterValidator(_address)] | None = Field(
        default=None, description="URL of the page that says what to do when a run fails."
    )
    store: Name | None = Field(
        default=None,
        repr=False,
        description=f"URL of the run store; default ${STORE_VARIABLE}, else {DEFAULT_STORE}; a Postgres URL for many "
        "machines.",
    )

    @field_validator("expect")
    @classmethod
    def _counts_from_a_schedule(cls, value: ExpectSettings | None, info: ValidationInfo) -> ExpectSettings | None:
        if value is not None and value.within is not None and info.data.get("schedule", value) is None:
            raise wrong(f"`within` {NEEDS_SCHEDULE}")
        return value


class StreamHead(Model):
    """The keys of an entry of `streams` that are read without the rest, where it has an `expect`."""

    stream: Pattern
    expect: ExpectSettings | None = None


#: Keys that take no template.
PLAIN_KEYS = tuple(key for key in HeadKeys.model_fields if key != "store")


def refuse_templates(values: Mapping[str, Any], report: Callable[[Loc, str], None]) -> None:
    """Report each template at a key that is read by commands which fill in none."""
    plain: list[tuple[Loc, Any]] = [((key,), values.get(key)) for key in PLAIN_KEYS]
    for place, entry in expecting_entries(values.get("streams")):
        plain += [(("streams", place, key), entry[key]) for key in ("stream", "expect") if key in entry]
    for above, value in plain:
        for loc, text in texts(value, above):
            if has_template(text):
                report(loc, "takes no template: a server reads this key and resolves no secret for it")


def expecting_entries(streams: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the entries of `streams` that say what to expect, each with its place."""
    for place, entry in enumerate(streams if isinstance(streams, list) else ()):
        if isinstance(entry, dict) and "expect" in entry:
            yield place, entry


def texts(value: Any, loc: Loc) -> Iterator[tuple[Loc, str]]:
    """Return the texts in a value, each with its place."""
    if isinstance(value, str):
        yield loc, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*loc, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from texts(item, (*loc, place))
