"""Read a YAML file into plain values with their line numbers. Safe: no tags, limited size, no ambiguous values.

YAML 1.1 and 1.2 read `no`, `012`, `1:30` or `2024-01-01` differently. Such a value is refused, with the advice to quote
it; in a file of another tool it is what YAML 1.1 says. Keys are always text, so `on:` is a key and not a boolean.

Messages show no text of the file but its keys: a value may be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from syncblocks.connectors.struct_helpers import Guarded

from ..errors import ConfigError, nearest_match
from .yaml_syntax import LINE_BREAK, syntax_error, unquoted

#: Place of a value: keys and list positions, from the top.
Loc = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
#: Most values after the expansion of aliases: a file with an alias bomb is small. So many are read in two seconds.
MAX_VALUES = 50_000
#: Most digits of a number; a longer one is an identifier without quotes.
MAX_DIGITS = 40

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "UTF-8 with a byte order mark"),
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NOT_TEXT = re.compile("[\0\ud800-\udfff]")

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?")
#: Values that YAML readers read differently.
_AMBIGUOUS = (
    (re.compile(r"yes|no|on|off", re.IGNORECASE), "a boolean", "write true or false"),
    (re.compile(r"[-+]?0[0-9_]+|0o[0-7]+|[-+]?0b[01_]+"), "an octal or binary number", "write it without leading zero"),
    (re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"), "a base-60 number", "write the plain number"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?"), "a number", "write it without underscores"),
    (re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), "a number", "write it with a decimal point"),
    (re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE), "a number that JSON does not know", ""),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?", re.DOTALL), "a date", ""),
)


def key_of(loc: Loc) -> str:
    """Return a place as text: `streams[2].stream`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text if len(text) <= 200 else f"{text[:200]}..."


class Document(Guarded, frozen=True):
    """The values of a YAML file or a mapping (JSON types only) and their line numbers."""

    _hidden = ("value", "lines")

    #: None: a mapping was given in place of a file.
    path: str | None
    value: dict[str, Any]
    lines: Mapping[Loc, int]

    def line(self, loc: Loc) -> int:
        """Return the line of a place, or of the nearest place around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def error(
        self,
        loc: Loc,
        message: str,
        *,
        allowed: tuple[str, ...] = (),
        nearest: str | None = None,
        kind: type[ConfigError] | None = None,
        listed_in: str = "",
    ) -> ConfigError:
        """Return an error that names the place."""
        make = kind or ConfigError
        line, key = None if self.path is None else self.line(loc), key_of(loc)
        return make(message, path=self.path, line=line, key=key, allowed=allowed, nearest=nearest, listed_in=listed_in)


def read_document(path: Path, text: str | None = None, *, kind: str = "", is_foreign: bool = False) -> Document:
    """Read a YAML file that contains a mapping.

    Args:
        path: the file.
        text: its content; None: it is read.
        kind: says what a mapping is, if it is no pipeline file.
        is_foreign: whether another tool's file is read, in which ambiguous values are those of YAML 1.1.

    Raises:
        ConfigError: it cannot be read, is not valid YAML, is ambiguous, too large or too deep.
    """
    shown = str(path)
    text = _read_text(path, shown) if text is None else text
    composer = _Composer(text, shown, is_foreign=is_foreign)
    try:
        top = composer.document()
    except yaml.YAMLError as error:
        raise syntax_error(error, text, shown) from None
    lines: dict[Loc, int] = {}
    value = _Expansion(shown, lines).plain(top, (), 0)
    value = {} if value is None and is_foreign else value
    if not isinstance(value, dict):
        what = "is empty" if value is None else f"holds {describe(value)}"
        ways = "`source:`, `destination:`, ...; `syncblocks sync FILE DST` takes a file of data"
        is_mapping = kind or f"a pipeline file is a mapping: {ways}"
        raise ConfigError(f"{what}; {is_mapping}", path=shown, line=1)
    return Document(shown, value, lines)


def describe(value: Any) -> str:
    """Name a value's type without showing the value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def _read_text(path: Path, shown: str) -> str:
    try:
        if path.is_dir():
            raise ConfigError("is a folder, not a pipeline file", path=shown)
        if path.exists() and not path.is_file():
            # Opening a pipe would wait for its writer forever.
            raise ConfigError("is not a regular file", path=shown)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("there is no such file", path=shown, nearest=_similar_file(path)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"cannot be read: {reason}", path=shown) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES:,} bytes", path=shown)
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            raise ConfigError(f"is {name}: save it as plain UTF-8", path=shown, line=1)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8: save it as plain UTF-8", path=shown, line=line) from None
    found = _NOT_PRINTABLE.search(text)
    if found is not None:
        line = len(LINE_BREAK.findall(text, 0, found.start())) + 1
        hint = ": is the file UTF-16? Save it as plain UTF-8" if found.group() == "\0" else ""
        raise ConfigError(f"holds the character U+{ord(found.group()):04X}{hint}", path=shown, line=line)
    return text


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else int(event.start_mark.line) + 1


def _similar_file(path: Path) -> str | None:
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")]
    except OSError:
        return None
    return nearest_match(path.name, names)


class _Node(Struct):
    #: The value of a scalar, a list of nodes, or key -> (line of the key, node).
    value: Any
    line: int
    #: Why a scalar is refused at the place where it is used; an anchor may be unused.
    refusal: str | None = None


class _Composer:
    """Builds nodes from the parser's events; aliases share a node."""

    def __init__(self, text: str, shown: str, *, is_foreign: bool) -> None:
        self._is_foreign = is_foreign
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Parser)
        self._shown = shown
        self._lines = LINE_BREAK.split(text)
        self._anchors: dict[str, _Node] = {}
        self._merged = 0
        self._composed = 0

    def document(self) -> _Node:
        top = _Node(None, 1)
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error("only one YAML document a file (`---` starts another)", event, ())
                top = self._node(next(self._events), ())
        return top

    def _error(self, message: str, event: Any, loc: Loc) -> ConfigError:
        return ConfigError(message, path=self._shown, line=_line(event), key=key_of(loc))

    def _node(self, event: Any, loc: Loc) -> _Node:
        if len(loc) > MAX_DEPTH:
            raise self._error(f"nested more than {MAX_DEPTH} levels deep", event, loc)
        self._composed += 1
        if self._composed > MAX_VALUES:
            raise self._error(f"more than {MAX_VALUES:,} values", event, loc)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                message = "`*name` refers to nothing above it (`&name`); a text that begins with `*` needs quotes"
                raise self._error(message, event, loc)
            return self._anchors[event.anchor]
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, loc)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._refuse_tag(event, "tag:yaml.org,2002:seq", loc)
            node = _Node([], _line(event))
            for item in iter(lambda: next(self._events), None):
                if isinstance(item, yaml.SequenceEndEvent):
                    break
                node.value.append(self._node(item, (*loc, len(node.value))))
        else:
            self._refuse_tag(event, "tag:yaml.org,2002:map", loc)
            node = _Node({}, _line(event))
            self._mapping(node, loc)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _refuse_tag(self, event: Any, plain: str, loc: Loc) -> None:
        if event.tag not in (None, "!", plain):
            raise self._error("a tag (`!name`) is not allowed; a text that begins with `!` needs quotes", event, loc)

    def _scalar(self, event: Any, loc: Loc) -> _Node:
        text: str = event.value
        line = _line(event)
        if NOT_TEXT.search(text):
            raise self._error("holds a NUL or half a surrogate pair", event, loc)
        self._refuse_tag(event, "tag:yaml.org,2002:str", loc)
        if event.tag is not None or not event.implicit[0]:
            return _Node(text, line)
        value, refusal = _resolve(text)
        return _Node(_of_yaml_1_1(text), line) if refusal and self._is_foreign else _Node(value, line, refusal)

    def _mapping(self, node: _Node, loc: Loc) -> None:
        own: dict[str, tuple[int, _Node]] = {}
        merged: dict[str, tuple[int, _Node]] = {}
        for event in iter(lambda: next(self._events), None):
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent) or not event.value:
                line = self._lines[_line(event) - 1]
                raise self._error(unquoted(line) or "a key must be text", event, loc)
            key: str = event.value
            self._refuse_tag(event, "tag:yaml.org,2002:str", (*loc, key))
            if NOT_TEXT.search(key):
                raise self._error("a key holds a NUL or half a surrogate pair", event, loc)
            line = _line(event)
            value = self._node(next(self._events), (*loc, key))
            if value.value is None and key.endswith(")") and own and _is_open(*own.values()):
                cut = next(reversed(own))
                message = f"a comma ends a value within {{ }}: put the value of {cut!r} in quotes"
                raise self._error(message, event, (*loc, cut))
            if key == "<<" and event.implicit[0]:
                merged = {**self._merge(value, event, loc), **merged}
            elif key in own:
                raise self._error(f"key {key!r} is given twice, first in line {own[key][0]}", event, (*loc, key))
            else:
                own[key] = (line, value)
        node.value = {**merged, **own}

    def _merge(self, value: _Node, event: Any, loc: Loc) -> dict[str, tuple[int, _Node]]:
        """Return the keys of `<<`; the first of several mappings wins, and the mapping's own keys win over all."""
        found: dict[str, tuple[int, _Node]] = {}
        for source in reversed(value.value if isinstance(value.value, list) else [value]):
            if not isinstance(source.value, dict):
                raise self._error("<< needs a mapping: <<: *name", event, loc)
            self._merged += len(source.value)
            if self._merged > MAX_VALUES:
                raise self._error(f"merges more than {MAX_VALUES:,} values", event, loc)
            found.update(source.value)
        return found


def _is_open(*entries: tuple[int, _Node]) -> bool:
    """Return whether the last of some values is a text whose parenthesis is not closed, such as `decimal(12`."""
    text = entries[-1][1].value
    return isinstance(text, str) and "(" in text.rpartition(")")[2]


def _resolve(text: str) -> tuple[Any, str | None]:
    """Return the value of an unquoted scalar, and why it is refused if YAML readers read it differently."""
    if text in _NULL:
        return None, None
    if text in _BOOL:
        return _BOOL[text], None
    if text[0] not in "+-.0123456789yYnNoO":
        return text, None
    for pattern, kind, advice in _AMBIGUOUS:
        if pattern.fullmatch(text):
            other = f", or {advice}" if advice else ""
            return text, f"some YAML readers take this for {kind}: put it in quotes{other}"
    number = _INT.fullmatch(text) or _HEX.fullmatch(text) or _FLOAT.fullmatch(text)
    if number is None:
        return text, None
    too_large = "this number is too large: put it in quotes if it is a text"
    if len(text) > MAX_DIGITS:
        return text, too_large
    if _HEX.fullmatch(text):
        return int(text, 16), None
    if _INT.fullmatch(text):
        return int(text), None
    value = float(text)
    return value, None if math.isfinite(value) else too_large


def _of_yaml_1_1(text: str) -> Any:
    """Return the value of an unquoted scalar as other tools' YAML readers have it; what they cannot read is text."""
    if len(text) > MAX_DIGITS:
        return text
    loader: Any = yaml.SafeLoader("")
    node = yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text)
    try:
        return loader.construct_object(node)
    except ValueError:  # such as the 31st of February
        return text


class _Expansion:
    """Turns nodes into plain values, records their lines, and limits the expansion of aliases."""

    def __init__(self, shown: str, lines: dict[Loc, int]) -> None:
        self._shown = shown
        self._lines = lines

    def plain(self, node: _Node, loc: Loc, line: int) -> Any:
        line = line or node.line
        self._lines[loc] = line
        if len(self._lines) > MAX_VALUES or len(loc) > MAX_DEPTH:
            message = f"more than {MAX_VALUES:,} values or {MAX_DEPTH} levels, aliases included"
            raise ConfigError(message, path=self._shown, line=line, key=key_of(loc))
        if node.refusal is not None:
            raise ConfigError(node.refusal, path=self._shown, line=line, key=key_of(loc))
        if isinstance(node.value, list):
            return [self.plain(item, (*loc, place), item.line) for place, item in enumerate(node.value)]
        if isinstance(node.value, dict):
            return {key: self.plain(item, (*loc, key), at) for key, (at, item) in node.value.items()}
        return node.value
