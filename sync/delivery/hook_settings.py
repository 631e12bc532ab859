"""Hooks (callbacks without Python): the engine fills in their settings just before a call.

Only the pipeline file decides what a hook calls; the run store has the event and a digest of the block. Settings are
filled in at the call: from the file, its variables and the date of the event.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from syncblocks.callbacks.kwargs import RESERVED, STATUSES
from syncblocks.callbacks.protocols import Delivery, Prepared
from syncblocks.connectors.named_parameters import parameter_names
from syncblocks.connectors.secret_texts import MASK

from ..config import Pipeline, settings_scope
from ..config.event_templates import event_values, fill, is_true, shown, vocabulary
from ..config.hook_checks import holds_token
from ..config.hook_texts import default_message, environment_of
from ..config.load import TEMPLATE_KEY
from ..config.templates import TemplateError, TemplateValues, has_template, render
from ..errors import SyncError
from ..secrets import Redactor
from .sql_hook import SQLCall


class HookError(SyncError):
    """The pipeline file's settings of a hook cannot be used."""

    code = "hook"


def hook_of(pipeline: Pipeline, number: int) -> dict[str, Any] | None:
    """Return the hook of a callback block, with its templates unfilled; None for a block of functions."""
    block = pipeline.callbacks[number]
    kind = block.kind
    if kind == "file":
        return None
    raw = pipeline.raw(("callbacks", number, kind))
    if kind == "sql":
        raw = {"statement": raw} if isinstance(raw, str) else raw
        raw = {"statement": raw["statement"], "parameters": dict(raw.get("parameters") or {})}
    elif kind == "shell":
        raw = raw if isinstance(raw, dict) else {"command": raw}
    elif kind == "notify":
        raw = raw if isinstance(raw, list) else [raw]
    hook = {"kind": kind, kind: raw}
    if kind == "notify":
        hook |= {"title": block.title, "message": block.message}
    return hook


def block_digest(pipeline: Pipeline, number: int) -> str:
    """Return a digest of a callback block: its keys, and its file's content.

    Possible secrets are omitted, so that the digest reveals nothing about them.
    """
    block = pipeline.callbacks[number]
    said = block.model_dump(mode="json", exclude={"notify", "webhook", "shell", "sql"})
    said = _public({**said, "hook": hook_of(pipeline, number)}, Redactor(pipeline.secret_values))
    content = b"" if block.file is None else pipeline.code_path(block.file).read_bytes()
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode() + b"\n" + content).hexdigest()[:32]


def _public(value: Any, redactor: Redactor) -> Any:
    """Return a setting with possible secrets masked."""
    if isinstance(value, dict):
        return {key: _public(item, redactor) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item, redactor) for item in value]
    if isinstance(value, str) and (holds_token(value) or redactor.redact(value) != value):
        return MASK
    return value


class Hooks:
    """Prepares each delivery: evaluates its condition, fills in messages and settings, creates statements."""

    def __init__(self, pipeline: Pipeline, redactor: Redactor, environ: Mapping[str, str] | None = None) -> None:
        """Share the run's redactor, which learns each secret that is resolved here."""
        self._pipeline = pipeline
        self._redactor = redactor
        self._environ = pipeline.environ if environ is None else environ

    def prepare(self, delivery: Delivery, kwargs: Mapping[str, Any]) -> Prepared:
        """See `Dispatcher.prepare`.

        Raises:
            HookError: a template, secret or setting no longer exists.
        """
        if delivery.hook is None and delivery.when is None:
            return Prepared()
        try:
            call = _Call(self._pipeline, self._redactor, self._environ, delivery, kwargs)
            if delivery.when is not None and not call.is_wanted(delivery.when):
                return Prepared(is_wanted=False)
            return Prepared() if delivery.hook is None else call.prepared(delivery.hook)
        except TemplateError as error:
            raise HookError(error.message) from None


class _Call:
    """One delivery before its call."""

    def __init__(
        self,
        pipeline: Pipeline,
        redactor: Redactor,
        environ: Mapping[str, str],
        delivery: Delivery,
        kwargs: Mapping[str, Any],
    ) -> None:
        self._pipeline = pipeline
        self._redactor = redactor
        self._delivery = delivery
        self._variables = dict(kwargs["pipeline_run"].get("variables") or {})
        self._scope = TemplateValues(folder=pipeline.folder, environ=environ, variables=self._variables)
        self._environ = environ
        self._values = event_values(kwargs, delivery.status, env=environ.get("ENV") or "dev")
        # All names are allowed here: the template was checked when the event was recorded.
        self._known = vocabulary(statuses=STATUSES, parents=("stream", "pipeline"), variables=self._variables)

    @cached_property
    def _settings_scope(self) -> TemplateValues:
        return settings_scope(self._pipeline, self._delivery.kwargs, self._environ)

    def is_wanted(self, when: str) -> bool:
        """Tell whether the condition is true for the event."""
        return is_true(when, self._values, self._known, self._scope)

    def prepared(self, hook: Mapping[str, Any]) -> Prepared:
        """Return the hook with its settings filled in."""
        kind = hook["kind"]
        if kind == "sql":
            statement = self._resolved(hook["sql"]["statement"], is_secret=False)
            return Prepared(local=self._statement(str(statement), hook["sql"]["parameters"]))
        settings = self._resolved(hook[kind], is_secret=kind in ("notify", "webhook"))
        request: dict[str, Any] = {"kind": kind, "key": self._delivery.key, "place": self._place(kind)}
        if kind == "notify":
            title, message = hook.get("title"), hook.get("message")
            request |= {
                "urls": _flat(settings),
                "title": "" if title is None else shown(self._filled(title)),
                "body": default_message(self._values) if message is None else shown(self._filled(message)),
                "status": self._delivery.status,
            }
        elif kind == "webhook":
            request |= {
                "url": settings["url"],
                "secret": settings.get("secret"),
                "headers": settings.get("headers") or {},
                "event": self._event(),
                "timeout_s": self._delivery.timeout_s,
            }
        else:
            event = self._event()
            request |= {
                "command": settings["command"],
                "event": event,
                "folder": str(self._pipeline.folder),
                "variables": {**environment_of(event), **(settings.get("env") or {})},
            }
        return Prepared(hook=request)

    def _place(self, kind: str) -> str:
        """Return file and line of the hook; empty: unknown."""
        blocks = [block.block for block in self._pipeline.callbacks]
        number = blocks.index(self._delivery.callback_block)
        path, line = self._pipeline.where(("callbacks", number, kind))
        return "" if path is None else f"{path}:{line}"

    def _event(self) -> dict[str, Any]:
        """Return the event for external receivers: the recorded values and the status, with secret variables masked."""
        # Without `configuration`: it is meant for functions, and may contain secrets.
        recorded = {name: value for name, value in self._delivery.kwargs.items() if name != "configuration"}
        event = {name: value if name in RESERVED else _masked(value) for name, value in recorded.items()}
        run = dict(event["pipeline_run"])
        run["variables"] = {name: _masked(value) for name, value in (run.get("variables") or {}).items()}
        return {**event, "pipeline_run": run, "status": self._delivery.status, "duration_s": self._values["duration_s"]}

    def _statement(self, text: str, given: Mapping[str, Any]) -> SQLCall:
        values = {name: value for name, value in self._values.items() if name not in given}
        for name, value in given.items():
            values[name] = self._filled(value) if isinstance(value, str) else value
        parameters = {name: _bindable(values[name]) for name in parameter_names(text)}
        return SQLCall(self._pipeline, text, parameters, self._delivery.key)

    def _filled(self, template: str) -> Any:
        filled = fill(template, self._values, self._known, self._scope)
        self._redactor.add(filled.secrets)
        return filled.value

    def _resolved(self, value: Any, *, is_secret: bool) -> Any:
        """Fill in settings; `is_secret`: a value without a template may be a secret too."""
        if isinstance(value, Mapping):
            return {key: self._resolved(item, is_secret=is_secret) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item, is_secret=is_secret) for item in value]
        if not isinstance(value, str) or not has_template(value):
            self._redactor.add({value} if is_secret and isinstance(value, str) else ())
            return value
        found = render(value, self._settings_scope)
        self._redactor.add(found.secrets | found.environment)
        return found.value


def _flat(settings: Iterable[Any]) -> list[str]:
    """Return the URLs of a setting; a variable may be a list of URLs."""
    return [str(url) for item in settings for url in (item if isinstance(item, list) else [item])]


def _masked(value: Any) -> Any:
    """Return a variable, or a mask if it came from env_var or secret."""
    return MASK if isinstance(value, Mapping) and TEMPLATE_KEY in value else value


def _bindable(value: Any) -> Any:
    """Return a value that a database can bind: lists and mappings as JSON, times as ISO text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, default=str) if isinstance(value, list | dict) else (shown(value) or None)
