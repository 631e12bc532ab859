"""A manifest: read it from a file or a URL, and find the Python that it names before anything of it runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ..errors import ConnectorConfigError, RetriableError
from ..local_files import make_private_folder, write_beside
from ..settings import resolve_path
from ..struct_helpers import Guarded
from .settings import AirbyteSettings
from .templates import filled_in

#: Largest manifest.
MAX_BYTES = 32 << 20
_TIMEOUT_S = 30.0
KIND = "DeclarativeSource"
#: Most parts of a specification, and how deep they may lie.
_MAX_NODES, _MAX_DEPTH = 100_000, 100

#: A duration of zero, such as `P0D`.
_ZERO = re.compile(r"P[^1-9]*0[^1-9]*")

#: libyaml's loader is ten times as fast; the CDK takes the same one.
_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_Dumper: Any = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper


class Manifest(Guarded, frozen=True, kw_only=True):
    """A manifest as it is handed to the CDK, and what is in it."""

    _hidden = ("text", "content")

    text: bytes
    content: Mapping[str, Any]

    @property
    def spec(self) -> Mapping[str, Any]:
        """The specification of the connector's config; empty: there is none."""
        spec = _resolved(self.content.get("spec"), self.content)
        found = spec.get("connection_specification") if isinstance(spec, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def lookbacks(self, config: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the streams that read records below their state again, and how far.

        A template that only the CDK can fill in counts.

        Args:
            config: the connector's config, for templates.
        """
        # The CDK changes the config by these rules before it fills in a template.
        has_rules = bool(_named(self.content.get("spec"), self.content).get("config_normalization_rules"))
        found = {}
        streams = self.content.get("streams")
        for stream in (_named(each, self.content) for each in (streams if isinstance(streams, list) else ())):
            # A stream of states on its own has its cursor one level deeper.
            for holder in (stream, _named(stream.get("incremental_stream"), self.content)):
                lookback = _named(holder.get("incremental_sync"), self.content).get("lookback_window")
                if not isinstance(lookback, str):
                    continue
                filled = None if has_rules and "{" in lookback else filled_in(lookback, config)
                if filled is None or (filled and not _ZERO.fullmatch(filled)):
                    found[_name(stream)] = lookback
        return found

    def read_in_turn(self) -> bytes:
        """Return the manifest with one thread: each STATE then covers all records before it.

        With several threads a STATE may lie behind records of another slice, which the next run sends again.
        """
        level = {"type": "ConcurrencyLevel", "default_concurrency": 1}
        text: bytes = yaml.dump(
            {**self.content, "concurrency_level": level}, Dumper=_Dumper, sort_keys=False, encoding="utf-8"
        )
        return text


def load_manifest(settings: AirbyteSettings, folder: Path, kept: Path) -> Manifest:
    """Read and check the manifest of the settings.

    Args:
        settings: of the connector.
        folder: the pipeline file's folder.
        kept: folder for manifests from URLs.

    Raises:
        ConnectorConfigError: there is no such manifest, it is another one, or it names Python without `allow_code`.
        RetriableError: the URL does not answer.
    """
    text = _text(settings, folder, kept)
    found = hashlib.sha256(text).hexdigest()
    if settings.sha256 and found != settings.sha256.lower():
        raise _wrong("sha256", f"the manifest has the hash {found}: it is another one, or has changed")
    try:
        content = _parsed(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise _wrong("manifest", f"{shown(settings.manifest)} is no YAML{where}") from error
    # Older manifests have no type.
    if not isinstance(content, dict) or content.get("type", KIND) != KIND or "check" not in content:
        raise _wrong("manifest", f"{shown(settings.manifest)} is no manifest: `type: {KIND}` and `check` are not in it")
    if not settings.allow_code:
        refuse_code(content)
    return Manifest(text=text, content=content)


def refuse_code(content: Mapping[str, Any]) -> None:
    """Raise if a manifest names Python: of `components`, or any class of its environment.

    Raises:
        ConnectorConfigError: it does.
    """
    for path, key, value in _pairs(content, (), set()):
        # A property of a JSON Schema may be called class_name, too.
        is_class = key == "class_name" and not (isinstance(value, Mapping) and "type" in value and "$ref" not in value)
        if is_class or (key == "type" and isinstance(value, str) and value.startswith("Custom")):
            what = f"{'.'.join(path)}.{key}".lstrip(".")
            raise _wrong(
                "allow_code",
                f"the manifest runs Python by {what!r}: read what it names, then say `allow_code: true`",
            )


def licence_beside(path: Path) -> str:
    """Return the licence in the `metadata.yaml` beside a manifest; empty: there is none."""
    try:
        found = _parsed((path.parent / "metadata.yaml").read_bytes())
        licence = found["data"]["license"]
    except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return licence if isinstance(licence, str) else ""


def shown(place: str) -> str:
    """Return a path, or a URL without its login and query."""
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.hostname}{parts.path}" if "://" in place else place


def _parsed(text: bytes) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _pairs(value: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Yield all keys with their values, and the path to them; each node once, whatever aliases name it."""
    if id(value) in seen or not isinstance(value, dict | list):
        return
    seen.add(id(value))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _pairs(inner, (*path, str(number)), seen)
        return
    for key, inner in value.items():
        yield path, str(key), inner
        yield from _pairs(inner, (*path, str(key)), seen)


def _resolved(node: Any, root: Mapping[str, Any], depth: int = 0, left: Iterator[int] | None = None) -> Any:
    """Return a node with the parts of the manifest that its `$ref`s name.

    Raises:
        ConnectorConfigError: the references name each other, or there are more than a manifest needs.
    """
    left = left or iter(range(_MAX_NODES))
    if next(left, None) is None or depth > _MAX_DEPTH:
        raise _wrong("manifest", "its `spec` names itself, or has parts without end")
    if isinstance(node, list):
        return [_resolved(each, root, depth + 1, left) for each in node]
    if not isinstance(node, Mapping):
        return node
    if isinstance(named := _at(node.get("$ref"), root), Mapping):
        own = {key: each for key, each in node.items() if key != "$ref"}
        return _resolved({**named, **own}, root, depth + 1, left)
    return {key: _resolved(each, root, depth + 1, left) for key, each in node.items()}


def _at(reference: Any, root: Mapping[str, Any]) -> Any:
    """Return the part of the manifest that a reference names; None: it is no reference, or names nothing."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    named: Any = root
    for part in reference[2:].split("/"):
        named = named.get(part) if isinstance(named, Mapping) else None
    return named


def _named(node: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a component that stands for itself, or by a reference; empty: it is none."""
    for _ in range(_MAX_DEPTH):
        own = {key: each for key, each in node.items() if key != "$ref"} if isinstance(node, Mapping) else {}
        named = _at(node.get("$ref") if isinstance(node, Mapping) else node, root)
        if named is None:
            return own
        node = {**named, **own} if isinstance(named, Mapping) else named
    return {}


def _name(stream: Mapping[str, Any]) -> str:
    """Return a stream's name, which its parameters may hold."""
    parameters = stream.get("$parameters")
    held = parameters.get("name") if isinstance(parameters, Mapping) else None
    name = stream.get("name", held)
    return str(held if "{{" in str(name) else name)


def _text(settings: AirbyteSettings, folder: Path, kept: Path) -> bytes:
    if "://" not in settings.manifest:
        path = resolve_path(settings.manifest, folder)
        try:
            with path.open("rb") as file:
                return _limited(file.read(MAX_BYTES + 1), settings.manifest)
        except OSError as error:
            raise _wrong("manifest", f"{path}: {error.strerror}") from error
    copy = kept / f"manifest-{settings.sha256.lower()}.yaml"
    try:
        text = copy.read_bytes()
    except OSError:
        text = b""
    if hashlib.sha256(text).hexdigest() != settings.sha256.lower():
        text = _limited(_downloaded(settings.manifest), settings.manifest)
        if hashlib.sha256(text).hexdigest() == settings.sha256.lower():
            make_private_folder(kept)
            write_beside(copy, text, 0o600).replace(copy)
    return text


def _downloaded(url: str) -> bytes:
    import http.client
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_TIMEOUT_S) as answer:
            if urlsplit(answer.geturl()).scheme != "https":
                raise _wrong("manifest", f"{shown(url)} leads to a place without https")
            text: bytes = answer.read(MAX_BYTES + 1)
            return text
    except HTTPError as error:
        error.close()
        raise _wrong("manifest", f"{shown(url)}: HTTP status {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise RetriableError(f"{shown(url)}: {type(reason).__name__}", connector="airbyte", key="manifest") from None


def _limited(text: bytes, place: str) -> bytes:
    if len(text) > MAX_BYTES:
        raise _wrong("manifest", f"{shown(place)} is larger than {MAX_BYTES >> 20} MB")
    return text


def _wrong(key: str, reason: str) -> ConnectorConfigError:
    return ConnectorConfigError(f"config of connector 'airbyte': {key}: {reason}", connector="airbyte", key=key)
