"""Callbacks without Python: what is recorded of them, and what the engine does for them just before a call.

What came from a template, and what may hold a token (the URLs of services), is recorded by reference only: as the
template, or as its place in the pipeline file. It gets its value when it is called, and only there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from syncblocks.callbacks.delivery import Delivery, Prepared
from syncblocks.callbacks.kwargs import RESERVED, STATUSES
from syncblocks.connectors.named import parameter_names

from ..config import Pipeline
from ..config.event_templates import event_values, fill, holds, shown, vocabulary
from ..config.hook_checks import holds_token
from ..config.hook_texts import default_message, environment_of
from ..config.secrets import MASK, Redactor, mask_url_passwords
from ..config.templates import Scope, TemplateError, has_template, render, template_names
from ..errors import SyncError
from .hook_statement import Statement

#: Keys of recorded references: a template with the default variables it needs; a place within the hook's settings.
TEMPLATE_KEY, SCOPE_KEY, PLACE_KEY = "$template", "$defaults", "$place"


class HookError(SyncError):
    """A hook cannot be called as it was recorded."""

    code = "hook"


def recorded_hook(pipeline: Pipeline, number: int) -> dict[str, Any] | None:
    """Return what is stored of a callback block's hook, plain JSON; None for a block of functions."""
    block = pipeline.callbacks[number]
    kind = block.kind
    if kind == "file":
        return None
    raw = pipeline.raw(("callbacks", number, kind))
    if kind == "sql":
        statement, parameters = (raw, {}) if isinstance(raw, str) else (raw["statement"], raw.get("parameters") or {})
        settings: Any = {"statement": _reference(pipeline, statement, ("statement",)), "parameters": dict(parameters)}
    elif kind == "notify":
        urls = raw if isinstance(raw, list) else [raw]
        settings = [_reference(pipeline, url, (place,), is_secret=True) for place, url in enumerate(urls)]
    else:
        settings = _reference(pipeline, raw, (), is_secret=kind == "webhook")
    recorded = {"kind": kind, kind: settings}
    if kind == "notify":
        recorded |= {"title": block.title, "message": block.message}
    return recorded


def _reference(pipeline: Pipeline, value: Any, place: tuple[str | int, ...], *, is_secret: bool = False) -> Any:
    """Return a setting without what may be secret in it."""
    if isinstance(value, dict):
        return {key: _reference(pipeline, item, (*place, key), is_secret=is_secret) for key, item in value.items()}
    if isinstance(value, list):
        return [_reference(pipeline, item, (*place, at), is_secret=is_secret) for at, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if has_template(value) and not (is_secret and holds_token(value)):
        defaults = pipeline.scope.defaults
        needed = {name: defaults[name] for name in sorted(template_names(value) & defaults.keys())}
        return {TEMPLATE_KEY: value, SCOPE_KEY: needed}
    if (
        is_secret
        or has_template(value)
        or mask_url_passwords(value) != value
        or Redactor(pipeline.secret_values).redact(value) != value
    ):
        return {PLACE_KEY: list(place)}
    return value


class Hooks:
    """The engine's part of every delivery: conditions, messages, settings; and statements, which it runs itself."""

    def __init__(self, pipeline: Pipeline, redactor: Redactor, environ: Mapping[str, str] | None = None) -> None:
        """Share the redactor of the run: it learns what is resolved here."""
        self._pipeline = pipeline
        self._redactor = redactor
        self._environ = os.environ if environ is None else environ

    def prepare(self, delivery: Delivery, kwargs: Mapping[str, Any]) -> Prepared:
        """See `Dispatcher.prepare`.

        Raises:
            HookError: a template, secret or setting is not there any more.
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
    """One delivery about to be called."""

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
        self._scope = Scope(folder=pipeline.folder, environ=environ, variables=self._variables)
        self._values = event_values(kwargs, delivery.status, env=environ.get("ENV") or "dev")
        # The names of every event: what a template may use was checked when it was recorded.
        self._known = vocabulary(statuses=STATUSES, parents=("stream", "pipeline"), variables=self._variables)

    def is_wanted(self, when: str) -> bool:
        """Tell whether the condition is true of the event."""
        return holds(when, self._values, self._known, self._scope)

    def prepared(self, hook: Mapping[str, Any]) -> Prepared:
        """Return what is to be called."""
        kind = hook["kind"]
        settings = self._resolved(hook[kind])
        if kind == "sql":
            return Prepared(local=self._statement(settings))
        request: dict[str, Any] = {"kind": kind, "key": self._delivery.key}
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
                "command": settings,
                "event": event,
                "folder": str(self._pipeline.folder),
                "variables": environment_of(event),
            }
        return Prepared(hook=request)

    def _event(self) -> dict[str, Any]:
        """Return the event as others get it: as recorded, with the status, and a mask for variables that are secret."""
        recorded = dict(self._delivery.kwargs)
        event = {name: value if name in RESERVED else _masked(value) for name, value in recorded.items()}
        run = dict(event["pipeline_run"])
        run["variables"] = {name: _masked(value) for name, value in (run.get("variables") or {}).items()}
        return {**event, "pipeline_run": run, "status": self._delivery.status, "duration_s": self._values["duration_s"]}

    def _statement(self, settings: Mapping[str, Any]) -> Statement:
        values = {name: value for name, value in self._values.items() if name not in settings["parameters"]}
        for name, value in settings["parameters"].items():
            values[name] = self._filled(value) if isinstance(value, str) else value
        text = str(settings["statement"])
        parameters = {name: _bindable(values[name]) for name in parameter_names(text)}
        return Statement(self._pipeline, text, parameters, self._delivery.key)

    def _filled(self, template: str) -> Any:
        filled = fill(template, self._values, self._known, self._scope)
        self._redactor.add(filled.secrets)
        return filled.value

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            if TEMPLATE_KEY in value:
                return self._rendered(value[TEMPLATE_KEY], value.get(SCOPE_KEY) or {})
            if PLACE_KEY in value:
                return self._of_today(tuple(value[PLACE_KEY]))
            return {key: self._resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        return value

    def _rendered(self, text: str, defaults: Mapping[str, Any]) -> Any:
        found = render(text, self._scope.knowing(**defaults))
        self._redactor.add(found.secrets | found.environment)
        return found.value

    def _of_today(self, place: tuple[str | int, ...]) -> Any:
        """Return a setting that is only in the pipeline file."""
        assert self._delivery.hook is not None
        kind, block = self._delivery.hook["kind"], self._delivery.callback_block
        value: Any = next((item for item in self._pipeline.callbacks if item.block == block), None)
        try:
            value = getattr(value, kind)
            for part in place:
                value = getattr(value, part) if isinstance(part, str) and hasattr(value, part) else value[part]
        except (AttributeError, LookupError, TypeError):
            value = None
        if not isinstance(value, str):
            raise HookError(
                f"a setting of {kind} stood in the file only, and callback block {block!r} has it no more: "
                "use {{ secret('x') }} for what may be needed later"
            )
        self._redactor.add({value})
        return value


def _flat(settings: Iterable[Any]) -> list[str]:
    """Return URLs; one setting may stand for several of them (a variable that is a list)."""
    return [str(url) for item in settings for url in (item if isinstance(item, list) else [item])]


def _masked(value: Any) -> Any:
    """Return a variable as others may see it: not, if it came from env_var or secret."""
    return MASK if isinstance(value, Mapping) and TEMPLATE_KEY in value else value


def _bindable(value: Any) -> Any:
    """Return a value as databases take it: lists and mappings as JSON, times as ISO text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, default=str) if isinstance(value, list | dict) else (shown(value) or None)
