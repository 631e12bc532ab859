"""Read the head of a pipeline file: what a server needs to know of it, without a look at any secret but the store's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from syncblocks.connectors.struct_helpers import Guarded

from ..errors import ConfigError, nearest_match
from ..schedules import Schedule
from ..secrets import Redactor, url_passwords
from .checks import check_store
from .current_folder import absolute
from .head_keys import DEFAULT_STORE, PLAIN_KEYS, HeadKeys, refuse_templates, texts
from .other_words import project_of_others
from .pydantic_errors import mistake_of
from .templates import CONFIGURATION, Scope, TemplateError, has_template, parse, render
from .yaml_document import Document, Loc, read_document


class StorePlace(NamedTuple):
    """Where the run store is."""

    url: str
    #: Secrets in it, which must be masked in each text.
    secret_values: frozenset[str]


class Head(Guarded, frozen=True, kw_only=True):
    """The keys of a pipeline file that are read without the rest."""

    _hidden = ("document",)

    #: Absolute.
    path: Path
    pipeline: str
    #: None: the file has none.
    schedule: Schedule | None
    owner: str | None
    tags: tuple[str, ...]
    runbook: str | None
    document: Document

    def store(self, environ: Mapping[str, str] | None = None) -> StorePlace:
        """Fill in the template of `store`, and no other.

        Raises:
            ConfigError: `store` is wrong, or needs a value that does not exist.
        """
        folder = self.path.parent
        said = self.document.value.get("store")
        said = DEFAULT_STORE if said is None else said
        mistakes = _Mistakes(self.document)
        if not isinstance(said, str) or not said.strip():
            mistakes.add(("store",), "must be a URL: sqlite:///.syncblocks/store.db or postgresql://user@host/database")
            mistakes.raise_them()
        try:
            filled, secrets = self._filled(said, os.environ if environ is None else environ)
        except TemplateError as error:
            raise self.document.error(("store",), error.message, allowed=error.allowed, nearest=error.nearest) from None
        mistakes.secrets = secrets | url_passwords(filled)
        url = check_store(filled, folder, mistakes.add)
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
        found = render(text, Scope(folder=self.path.parent, environ=environ, variables=variables, defaults=defaults))
        return str(found.value), found.secrets | found.environment


def read_head(path: Path, text: str | None = None) -> Head:
    """Read `pipeline`, `schedule`, `owner`, `tags` and `runbook`; no template is filled in, other keys are not judged.

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
    refuse_templates(values, mistakes.add)
    mistakes.raise_them()
    keys = None
    try:
        keys = HeadKeys.model_validate(values)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            mistakes.add(**mistake_of(each, values))
    mistakes.raise_them()
    assert keys is not None, "what is wrong was raised"
    return Head(
        path=absolute(path),
        pipeline=keys.pipeline or path.stem,
        schedule=None if keys.schedule is None else keys.schedule.value,
        owner=keys.owner,
        tags=keys.tags,
        runbook=keys.runbook,
        document=document,
    )


class _Mistakes:
    """What is wrong in a file, in the order in which it was found."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[ConfigError] = []
        self.secrets: frozenset[str] = frozenset()

    def add(
        self, loc: Loc, message: str, *, allowed: Any = (), word: str | None = None, nearest: str | None = None
    ) -> None:
        """Note one; `word` is the file's value, for which a nearest match is looked up."""
        allowed = tuple(allowed)
        nearest = nearest or (None if word is None else nearest_match(word, allowed))
        message = Redactor(self.secrets).redact(message)
        self._found.append(self._document.error(loc, message, allowed=allowed, nearest=nearest))

    def raise_them(self) -> None:
        """Raise one error for all of them; do nothing if there is none."""
        if self._found:
            first, *others = self._found
            first.others = tuple(others)
            raise first
