"""Settings of hooks, the callback blocks without Python: `notify`, `webhook`, `shell` and `sql`."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from .base import Defaulting, wrong

#: Kinds of callback blocks, by the key of the pipeline file. `file` is a file of Python functions.
HOOKS = ("notify", "webhook", "shell", "sql")
KINDS = ("file", *HOOKS)

#: Keys with templates over the event: filled in when the hook is called, not when the file is loaded.
EVENT_TEMPLATES = ("message", "title", "when")

#: Default statuses of hooks. A notification is sent for every end of a stream; the other hooks need its data.
DEFAULT_STATUSES = {"notify": ("success", "failure", "cancelled")}
OTHER_STATUSES = ("success",)

_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOTIFY_URL = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*://\S")
#: Headers that the engine sets itself.
_OWN_HEADERS = ("idempotency-key", "x-syncblocks-signature", "x-syncblocks-timestamp", "content-length", "host")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong("must be text")
    if not value.strip():
        raise wrong("is empty")
    if "\0" in value:
        raise wrong("holds a NUL")
    return str(value)


def _urls(value: Any) -> Any:
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else None
    if not found:
        raise wrong("must be an Apprise URL, or a list of them: slack://..., mailto://...")
    for place, url in enumerate(found):
        if not isinstance(url, str) or not _NOTIFY_URL.match(url):
            where = "" if isinstance(value, str) else f"item {place + 1} "
            raise wrong(f"{where}is not an Apprise URL such as slack://..., mailto://..., json://host/path")
    return tuple(str(url) for url in found)


def _command(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if not value or not all(isinstance(item, str) and "\0" not in item for item in value) or not value[0].strip():
            raise wrong(
                'must be a list of texts, the program first: [curl, "-s", ...]; a number, true and false need quotes'
            )
        return tuple(str(item) for item in value)
    if not isinstance(value, str):
        raise wrong("must be a command: text for /bin/sh, or a list of the program and its arguments")
    return _text(value)


def _shell(value: Any) -> Any:
    return value if isinstance(value, dict) else {"command": value}


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _PARAMETER.fullmatch(name):
            raise wrong(f"{name!r} is not a name of a variable: letters, digits and '_'")
        if "\0" in text:
            raise wrong(f"the value of {name} holds a NUL")
    return {name: str(text) for name, text in value.items()}


def _sql(value: Any) -> Any:
    return {"statement": value} if isinstance(value, str) else value


def _http_url(value: Any) -> Any:
    url = _text(value)
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or re.search(r"[\x00-\x20\x7f]", url):
        raise wrong("must be a URL: https://host/path")
    return url


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _HEADER.fullmatch(name):
            raise wrong(f"{name!r} is not a name of a header")
        if name.lower() in _OWN_HEADERS:
            raise wrong(f"{name} is set by syncblocks")
        if not re.fullmatch(r"[\x20-\x7e]*", text):
            raise wrong(f"the value of {name} holds a line break or a character that is not ASCII")
    return {name: str(text) for name, text in value.items()}


def parameters_of(value: dict[str, Any]) -> dict[str, Any]:
    """Check the names and values of parameters that a statement binds."""
    for name, item in value.items():
        if not _PARAMETER.fullmatch(name):
            raise wrong(f"{name!r} is not a name of a parameter: letters, digits and '_'")
        if not isinstance(item, str | int | float | bool | None):
            raise wrong(f"the value of {name} must be text, a number, true, false or null")
    return value


Urls = Annotated[
    tuple[str, ...],
    PlainValidator(_urls),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
Command = Annotated[
    str | tuple[str, ...],
    PlainValidator(_command),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
HttpUrl = Annotated[str, PlainValidator(_http_url), WithJsonSchema({"type": "string"})]


class WebhookSettings(Defaulting):
    """A webhook: the event is sent to a URL as JSON, by POST."""

    url: HttpUrl = Field(repr=False, description="http:// or https://; a redirect is a failure.")
    secret: Text | None = Field(
        default=None,
        repr=False,
        description="Key of the signature X-Syncblocks-Signature: sha256=<HMAC-SHA256 of timestamp, '.' and body>.",
    )
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(
        default_factory=dict, repr=False, description="Further headers."
    )


class ShellSettings(Defaulting):
    """A command, with variables for its environment."""

    command: Command = Field(repr=False, description="Text for /bin/sh, or a list of a program and its arguments.")
    env: Annotated[dict[str, str], AfterValidator(_variables)] = Field(
        default_factory=dict, repr=False, description="Environment variables; the place for secrets."
    )


class SqlSettings(Defaulting):
    """A SQL statement that the destination runs."""

    statement: Text = Field(repr=False, description="One SQL statement; `:stream` is a bound parameter.")
    parameters: Annotated[dict[str, Any], AfterValidator(parameters_of)] = Field(
        default_factory=dict,
        repr=False,
        description="Further parameters: constants, or templates over the event such as '{{ block_run.rows }}'.",
    )


Shell = Annotated[ShellSettings, BeforeValidator(_shell)]
Sql = Annotated[SqlSettings, BeforeValidator(_sql)]
