"""Settings of connectors: one pydantic model for each connector, and one resolver for every path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ConnectorConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound="Settings")

#: Most mistakes of one config that are told.
MAX_MISTAKES = 20

#: Schemes of URLs of files that are opened; others, such as chained ones, are refused.
FILE_SCHEMES = frozenset(
    [
        *("file", "local", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "http", "https"),
        *("hdfs", "webhdfs", "oci", "r2", "oss", "cos", "sftp", "ssh", "ftp"),
    ]
)

#: Those of them that are opened by `sftp.py`, and nowhere else: it alone looks at the server's key.
SFTP_SCHEMES = frozenset({"sftp", "ssh"})

#: What other tools call a setting -> what it is called here.
_OTHER_WORDS = {
    "database": ("dbname", "path"),
    "db": ("dbname", "database", "path"),
    "dbname": ("database", "path"),
    "hostname": ("host",),
    "server": ("host",),
    "username": ("user",),
    "passwd": ("password",),
    "connection_string": ("url",),
    "connection_url": ("url",),
    "sqlalchemy_url": ("url",),
    "credentials": ("url",),
    "dsn": ("url",),
    "uri": ("url",),
    "instance": ("path",),
    "file": ("path",),
    "file_path": ("path",),
    "filename": ("path",),
    "folder": ("path",),
    "directory": ("path",),
    "destination_path": ("path",),
    "bucket": ("path",),
    "bucket_url": ("path",),
    "files": ("streams",),
    "file_glob": ("streams",),
    "jsonpath": ("records",),
    "jmespath": ("records",),
    "default_target_schema": ("schema",),
    "dataset_name": ("schema",),
    "separator": ("delimiter",),
    "sep": ("delimiter",),
}


#: Pattern of a setting -> an example that matches it.
_EXAMPLES: dict[str, str] = {}


def pattern_like(pattern: str, example: str) -> str:
    """Return a pattern for a setting. Messages about a wrong value show the example, not the pattern."""
    _EXAMPLES[pattern] = example
    return pattern


class Config(dict[str, Any]):
    """A connector's config as the pipeline file has it; its text has no value, which may be a secret."""

    def __repr__(self) -> str:
        """Return the names of the settings."""
        return f"Config({', '.join(self)})"

    def __rich_repr__(self) -> Iterator[str]:
        """Yield what rich shows, as in a traceback with local variables."""
        yield from self


class Settings(BaseModel):
    """Base of every connector's settings; editors and docs show each field's description."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[None, str]]:
        """Yield the names of the settings: a path, too, may hold a password."""
        yield from ((None, name) for name in sorted(self.model_fields_set))


def parse_settings(model: type[Model], config: Mapping[str, Any], connector: str) -> Model:
    """Check a connector's `config` mapping.

    Raises:
        ConnectorConfigError: all that is wrong. A message has the key, the allowed keys and the nearest match; never a
            value.
    """
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        found = {_place(each, config): each for each in error.errors(include_url=False, include_input=False)[::-1]}
        known = sorted(field.alias or name for name, field in model.model_fields.items())
        meant = {nearest(str(each["loc"][-1]), known) for each in found.values() if each["type"] == "extra_forbidden"}
        told = [each for each in found.values() if each["type"] != "missing" or each["loc"][0] not in meant]
        first, *others = (_mistake(each, known, connector) for each in reversed(told))
        first.others = tuple(others[: MAX_MISTAKES - 1])
        raise first from None


def _place(error: ErrorDetails, config: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Return which value is wrong: of a value that may be of several types there is an error for each."""
    value: Any = config
    for depth, part in enumerate(error["loc"]):
        is_there = part in value if isinstance(value, Mapping) else isinstance(part, int) and isinstance(value, list)
        if not is_there:
            return error["loc"] if error["type"] == "missing" else error["loc"][:depth]
        value = value[part]
    return error["loc"]


def _mistake(error: ErrorDetails, known: Sequence[str], connector: str) -> ConnectorConfigError:
    key = ".".join(str(part) for part in error["loc"])
    reason = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if error["type"] == "missing":
        reason = "is required"
    if error["type"] == "string_pattern_mismatch" and (example := _EXAMPLES.get(error["ctx"]["pattern"])):
        reason = f"must be written like {example}"
    message = f"config of connector {connector!r}: {f'{key}: ' if key else ''}{reason}"
    if error["type"] == "extra_forbidden":
        message = f"config of connector {connector!r} has no key {key!r}"
        message += choice(key, known, listed_by=f"`syncblocks connectors {connector}` and docs/connectors.md")
    return ConnectorConfigError(message, connector=connector, key=key)


def choice(word: str, known: Iterable[str], *, listed_by: str = "") -> str:
    """Return `; did you mean 'x'? Allowed: ...` for a word that is none of the known ones.

    Of a long list that `listed_by` has the nearest three are shown.
    """
    import difflib

    allowed = sorted(known)
    near = nearest(word, allowed)
    begin = f"; did you mean {near!r}? A" if near else "; a"
    if not listed_by or len(allowed) <= _SHORT_LIST:
        return f"{begin}llowed: {', '.join(allowed)}"
    few = difflib.get_close_matches(word.lower(), allowed, n=3, cutoff=0)
    return f"{begin}llowed: {', '.join(few)} and {len(allowed) - len(few)} more, see {listed_by}"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that is most like another one; None: none is."""
    import difflib

    other = next((each for each in _OTHER_WORDS.get(word.lower(), ()) if each in known), None)
    return other or next(iter(difflib.get_close_matches(word.lower(), known, n=1)), None)


def resolve_path(path: str, folder: Path) -> Path:
    """Return the absolute path; a relative path counts from `folder`, the pipeline file's. The only resolver."""
    if "\0" in path:
        raise ConnectorConfigError(f"a path must not contain a NUL: {path!r}")
    expanded = Path(path).expanduser()
    return Path.absolute(expanded if expanded.is_absolute() else folder / expanded)


#: A longer list of allowed settings is not shown whole.
_SHORT_LIST = 8

#: Begins the parameters of a URL.
_PARAMETERS = re.compile(r"\?[\w.%-]+=")

#: In a password, any of these ends it for one driver or another.
_ENDING = frozenset("/?#@&")

_AMBIGUOUS = (
    "the URL is ambiguous: percent-encode the password in it (`@` as %40, `/` as %2F, `?` as %3F, "
    "`#` as %23, `&` as %26, `:` as %3A)"
)


def refuse_ambiguous(url: str, *, other: str, is_of_files: bool = False) -> None:
    """Raise ValueError for a URL whose password may end elsewhere than meant; the message holds nothing of it.

    A driver would take a part of the password for the host, and show it in its error.

    Args:
        url: the URL.
        other: what the password can be given by instead, for the message.
        is_of_files: its path may hold an `@`.
    """
    rest = url.partition("://")[2]
    found = _PARAMETERS.search(rest)
    head = rest[: found.start()] if found else rest
    login, at, _ = head.rpartition("@")
    user, colon, password = login.partition(":")
    is_login = bool(colon) and "/" not in user
    if is_of_files and password.partition("/")[0].isdigit():
        is_login = False  # a port, and a path
    if at and is_login and _ENDING.intersection(password):
        raise ValueError(f"{_AMBIGUOUS}, or give it by {other}")
    places = head.rpartition("@")[2] if at and (is_login or "/" not in login) else head
    for place in re.split("[/?#]", places, maxsplit=1)[0].split(","):
        _, colon, port = place.rpartition(":")
        if colon and port and not port.isdigit() and not port.endswith("]"):
            raise ValueError(f"{_AMBIGUOUS}, or give it by {other}; the port behind a host's `:` must be a number")


def known_settings(model: type[BaseModel], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a connector knows in its other role: some are for reading, some for writing only."""
    known = {field.alias or name for name, field in model.model_fields.items()} | set(model.model_fields)
    return Config({key: value for key, value in config.items() if key in known})


def is_installed(module: str) -> bool:
    """Tell whether a module of the top level can be imported; imports nothing."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def is_url(path: str) -> bool:
    """Tell whether a path is a URL (`s3://bucket/x`, also `file://`)."""
    return "://" in path


def url_scheme(path: str) -> str:
    """Return the scheme of a file's URL; raise if such URLs are not opened."""
    scheme = path.partition("://")[0].lower()
    if scheme not in FILE_SCHEMES:
        raise ConnectorConfigError(
            f"URLs of scheme {scheme!r} are not supported{choice(scheme, FILE_SCHEMES)}", key="path"
        )
    return scheme
