"""Read the head of a pipeline file: what a server needs to know of it, without a look at any secret but the store's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from syncblocks.connectors.struct_helpers import Guarded

from ..errors import ConfigError, nearest_match
from ..schedules import Schedule
from ..schedules.expect import Expect
from ..secrets import Redactor, url_passwords
from .current_folder import absolute
from .expect import NEEDS_SCHEDULE
from .globs import exact_name, glob_matches
from .head_keys import (
    PLAIN_KEYS,
    HeadKeys,
    StreamHead,
    expecting_entries,
    refuse_templates,
    texts,
)
from .other_words import project_of_others
from .pydantic_errors import mistake_of
from .refusals import check_store
from .run_retention import HistorySettings
from .store_place import StorePlace, usual_store
from .templates import CONFIGURATION, TemplateError, TemplateValues, has_template, parse, render
from .yaml_document import Document, Loc, read_document

_M = TypeVar("_M", bound=BaseModel)


class Head(Guarded, frozen=True, kw_only=True):
    """The keys of a pipeline file that are read without the rest."""

    _hidden = ("document",)

    #: Absolute.
    path: Path
    pipeline: str
    #: None: the file has none.
    schedule: Schedule | None
    #: Of the whole pipeline; None: the file has none.
    expect: Expect | None
    #: Name or glob of streams -> what is expected of each of them; later ones take the place of earlier ones.
    stream_expects: tuple[tuple[str, Expect | None], ...]
    #: Which runs the store keeps; None: all of them.
    history: HistorySettings | None
    owner: str | None
    tags: tuple[str, ...]
    runbook: str | None
    document: Document

    def expects(self, streams: Iterable[str]) -> dict[str, Expect]:
        """Return what is expected of streams: of the given ones, and of those that an entry names."""
        named = (exact_name(pattern) for pattern, expect in self.stream_expects if expect is not None)
        found: dict[str, Expect] = {}
        for stream in dict.fromkeys((*streams, *(name for name in named if name is not None))):
            said = [each for pattern, each in self.stream_expects if _is_about(pattern, stream)]
            if said and said[-1] is not None:
                found[stream] = said[-1]
        return found

    def store(self, environ: Mapping[str, str] | None = None) -> StorePlace:
        """Fill in the template of `store`, and no other.

        Raises:
            ConfigError: `store` is wrong, or needs a value that does not exist.
        """
        environ = os.environ if environ is None else environ
        said = self.document.value.get("store")
        if said is None:
            return usual_store(self.path.parent, environ)
        mistakes = _Mistakes(self.document)
        if not isinstance(said, str) or not said.strip():
            mistakes.add(("store",), "must be a URL: sqlite:///.syncblocks/store.db or postgresql://user@host/database")
            mistakes.raise_them()
        try:
            filled, secrets = self._filled(said, environ)
        except TemplateError as error:
            raise self.document.error(("store",), error.message, allowed=error.allowed, nearest=error.nearest) from None
        mistakes.secrets = secrets | url_passwords(filled)
        url = check_store(filled, self.path.parent, mistakes.add)
        mistakes.raise_them()
        return StorePlace(url, mistakes.secrets)

    def _filled(self, text: str, environ: Mapping[str, str]) -> tuple[str, frozenset[str]]:
        if not has_template(text):
            return text, frozenset()
        given = self.document.value.get("variables")
        variables: dict[str, Any] = given if isinstance(given, dict) else {}
        for function, name, _ in parse(text, CONFIGURATION).calls:
            if function == "variables" and any(has_template(each) for _, each in texts(variables.get(name), ())):
                raise TemplateError(f"variable {name!r} is a template itself: write that template here")
        defaults = {"env": environ.get("ENV") or "dev", "pipeline": {"name": self.pipeline, "uuid": self.pipeline}}
        found = render(
            text, TemplateValues(folder=self.path.parent, environ=environ, variables=variables, defaults=defaults)
        )
        return str(found.value), found.secrets | found.environment


def read_head(path: Path, text: str | None = None) -> Head:
    """Read what a server needs, the templates of `store` unfilled; other keys are not judged.

    Args:
        path: the pipeline file.
        text: its content; None: it is read.

    Raises:
        ConfigError: the first mistake, with file, line and key; `others` has the further ones.
    """
    document = read_document(path, text)
    if way := project_of_others(document.value, str(path)):
        raise ConfigError(way, path=str(path))
    values = {key: document.value[key] for key in PLAIN_KEYS if key in document.value}
    mistakes = _Mistakes(document)
    refuse_templates(document.value, mistakes.add)
    mistakes.raise_them()
    keys = _validated(HeadKeys, values, (), mistakes)
    entries = []
    for place, entry in expecting_entries(document.value.get("streams")):
        about: dict[str, Any] = {key: entry[key] for key in ("stream", "expect") if key in entry}
        if (said := _validated(StreamHead, about, ("streams", place), mistakes)) is None:
            continue
        if said.expect is not None and said.expect.within is not None and keys is not None and keys.schedule is None:
            mistakes.add(("streams", place, "expect"), f"`within` {NEEDS_SCHEDULE}")
        expect = None if entry.get("selected") is False else said.expect
        entries.append((said.stream, None if expect is None else expect.value))
    mistakes.raise_them()
    assert keys is not None, "what is wrong was raised"
    return Head(
        path=absolute(path),
        pipeline=keys.pipeline or path.stem,
        schedule=None if keys.schedule is None else keys.schedule.value,
        expect=None if keys.expect is None else keys.expect.value,
        stream_expects=tuple(entries),
        history=keys.history,
        owner=keys.owner,
        tags=keys.tags,
        runbook=keys.runbook,
        document=document,
    )


def _is_about(pattern: str, stream: str) -> bool:
    return exact_name(pattern) == stream or glob_matches(pattern, stream)


def _validated(model: type[_M], values: dict[str, Any], above: Loc, mistakes: _Mistakes) -> _M | None:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            mistakes.add(**mistake_of({**each, "loc": (*above, *each["loc"])}, mistakes.document.value))
    return None


class _Mistakes:
    """What is wrong in a file, in the order in which it was found."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._found: list[ConfigError] = []
        self.secrets: frozenset[str] = frozenset()

    def add(
        self,
        loc: Loc,
        message: str,
        *,
        allowed: Any = (),
        word: str | None = None,
        nearest: str | None = None,
        listed_in: str = "",
    ) -> None:
        """Note one; `word` is the file's value, for which a nearest match is looked up."""
        allowed = tuple(allowed)
        nearest = nearest or (None if word is None else nearest_match(word, allowed))
        message = Redactor(self.secrets).redact(message)
        error = self.document.error(loc, message, allowed=allowed, nearest=nearest, listed_in=listed_in)
        self._found.append(error)

    def raise_them(self) -> None:
        """Raise one error for all of them; do nothing if there is none."""
        if self._found:
            first, *others = self._found
            first.others = tuple(others)
            raise first
