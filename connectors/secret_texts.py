"""Which values are masked in texts, and how an encoded secret is found.

A program may write each character of a secret as it is, percent-encoded, as an escape of JSON, Python, a shell or
YAML, or as an HTML entity. Encodings may be inside each other, and a text may mix them. A list of the encoded secrets
would never be complete, so `Secrets` decodes the text instead, one layer after another, and searches each layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

#: Replaces a secret.
MASK = "***"

#: Shorter values are not masked: they occur in most texts.
MIN_LENGTH = 4

#: Shorter values without punctuation are masked as whole words only: `main` must not mask `domain`.
WORD_LENGTH = 8

#: Values that are never secrets.
NOT_SECRET = frozenset({"true", "false", "none", "null", "http", "https", "localhost"})

#: Maximum number of layers that are decoded. A layer halves a run of backslashes, so 1 MB of them takes 20.
MAX_LAYERS = 24

#: The remaining part of a secret that a cut has split is masked if it has at least this many characters.
CUT_LENGTH = 4
#: Maximum number of cuts of each kind that are checked in a text.
MAX_CUTS = 20
#: Number of characters of the longest escape (`\\U0001F511`) that a cut may have split.
_ESCAPE_LENGTH = 10

#: Beginning of the remaining part of a text that was cut.
_CUT = re.compile(r"^\.\.\.", re.MULTILINE)
#: End of the first part of a text that was cut. An error may continue after it.
_DOTS = re.compile(r"\.\.\.+")

#: One encoded character, or punctuation that encodings repeat. Because of the set at the beginning, `re` skips other
#: characters quickly. Code replaces RUN with the pattern of further backslashes.
_ENCODED = r"""
    [\\%&"'`{}$\x80-\xff\ud800-\udbff] (?:
      (?<=\\) RUN (?:
          x(?P<x>[89A-Fa-f][0-9A-Fa-f](?:RUN\\x[89A-Fa-f][0-9A-Fa-f])* | [0-7][0-9A-Fa-f])
        | u(?P<u>[0-9A-Fa-f]{4}) | U(?P<U>[0-9A-Fa-f]{8}) | u\{(?P<b>[0-9A-Fa-f]{1,6})\}
        | (?P<o>[23][0-7]{2}(?:RUN\\[23][0-7]{2})* | [01][0-7]{2})
        | \r?\n[ \t]*\\?                                       # a line that YAML or a shell continues
        | (?P<c>.)
      )
    | (?<=%) (?: (?P<p>[89A-Fa-f][0-9A-Fa-f](?:%[89A-Fa-f][0-9A-Fa-f])* | [0-7][0-9A-Fa-f]) | u(?P<j>[0-9A-Fa-f]{4}) )
    | (?<=&) (?P<h>\#[0-9]{1,7}; | \#[xX][0-9A-Fa-f]{1,6}; | [A-Za-z][A-Za-z0-9]{1,30};)
    | (?<=["']) (?P<q>["']+)                                   # doubled by SQL and CSV, or quoted by a shell
    | (?<=[%`{}$]) (?P<d>(?<=%)%+(?![0-9A-Fa-f]{2}) | (?<=`)`+ | (?<=\{)\{+ | (?<=\})\}+ | (?<=\$)\$+)
    | (?<=[\x80-\xff]) (?P<l>[\x80-\xff]+)                   # UTF-8 that was read byte by byte
    | (?<=[\ud800-\udbff]) (?P<s>[\udc00-\udfff])
    )
"""
#: White space, which a program may have replaced by other white space or by `+`.
_SPACES = r"| (?P<w>[+\s](?:(?<![ ])[+\s]*|[+\s]+))"


def _pattern(run: str, more: str = "") -> re.Pattern[str]:
    return re.compile(_ENCODED.replace("RUN", run) + more, re.VERBOSE | re.DOTALL)


#: The first pattern decodes one layer of backslashes, as programs write them. The second one decodes all backslashes at
#: once, because a text may have lost some of them.
_TOKENS = _pattern(""), _pattern(r"\\*")
_SPACED_TOKENS = _pattern("", _SPACES), _pattern(r"\\*", _SPACES)
_SPACE = re.compile(r"\s")
#: Characters that begin an escape or repeat.
_OPEN = " \t\r\n\"'\\%&`{}$+"
_NAMED = {"n": "\n", "r": "\n", "t": "\t", "f": "\n", "v": "\n", "b": "\b", "a": "\a", "0": "\0", "e": "\x1b"}


def is_maskable(value: str) -> bool:
    """Return true if a text may be masked where it occurs."""
    return len(value.strip()) >= MIN_LENGTH and value.lower() not in NOT_SECRET


def _layers(text: str, token: re.Pattern[str]) -> Iterator[str]:
    """Yield a text, then the text with each layer of its encodings decoded."""
    for _ in range(MAX_LAYERS):
        yield text
        decoded = token.sub(_decoded, text)
        if decoded == text:
            return
        text = decoded


def is_telling(part: str) -> bool:
    """Return true if a part of a secret may be masked where it occurs alone, because it is not a short word."""
    return is_maskable(part) and (len(part) >= WORD_LENGTH or not part.isalnum())


class Secrets:
    """Known secrets, to be masked in texts."""

    def __init__(self, forms: Iterable[str]) -> None:
        """Know the forms of secrets: values, parts of values and encodings that are not character by character."""
        given = set(forms)
        self._tokens = _SPACED_TOKENS if any(_SPACE.search(form.strip()) for form in given) else _TOKENS
        found = {each for form in given for token in self._tokens for each in _layers(form, token)}
        found |= {each.strip() for each in found}
        # A character around the secret may belong to the same escape as the secret's first or last one.
        found |= {core for each in found if is_telling(core := each.strip(_OPEN))}
        self._forms = tuple(sorted(filter(is_maskable, found), key=lambda form: (-len(form), form)))
        #: First characters of a form -> the forms, the longest one first.
        self._by_start: dict[str, list[str]] = {}
        for form in self._forms:
            self._by_start.setdefault(form[:MIN_LENGTH], []).append(form)
        self._starts = _any_of(self._by_start)
        #: All forms, so that one search shows that none has the characters at a cut.
        self._all = "\n".join(self._forms)

    def masked(self, text: str) -> str:
        """Return a text with these secrets masked, and the parts of secrets at a cut.

        A line that begins with `...`, and the text before each `...`, was cut there.
        """
        spans: list[tuple[int, int]] = []
        has_runs = False
        for place, token in enumerate(self._tokens):
            if place and not has_runs:
                break
            found = []
            for layer in _layers(text, token):
                has_runs = has_runs or "\\\\" in layer
                found.append([*self._whole(layer), *self._cut(layer)])
            while found and not found[-1]:
                found.pop()
            for here, (starts, ends) in zip(found, _origins(text, len(found) - 1, token) if found else (), strict=True):
                spans += ((starts[start], ends[end - 1]) for start, end in here)
        return _without(text, sorted(spans)) if spans else text

    def _whole(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the places of all forms, even if they overlap."""
        for match in self._starts.finditer(text):
            start = match.start()
            for form in self._by_start[match[1]]:
                if text.startswith(form, start) and _is_word(form, text, start):
                    yield start, start + len(form)
                    break

    def _cut(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the places of the parts of forms at a cut."""
        if "..." not in text:
            return
        for cut in list(_CUT.finditer(text))[:MAX_CUTS]:
            # The cut may have split the escape of a character.
            for at in range(cut.end(), cut.end() + _ESCAPE_LENGTH):
                if rest := self._longest(_cut_off_start, text, at, text[at : at + CUT_LENGTH]):
                    yield cut.end(), at + rest
                    break
        for cut in list(_DOTS.finditer(text))[-MAX_CUTS:]:
            last = cut.start()
            for at in range(last, max(0, last - _ESCAPE_LENGTH), -1):
                if rest := self._longest(_cut_off_end, text, at, text[max(0, at - CUT_LENGTH) : at]):
                    yield at - rest, last
                    break

    def _longest(self, measure: Callable[[str, str, int], int], text: str, at: int, probe: str) -> int:
        if len(probe) < CUT_LENGTH or probe not in self._all:
            return 0
        return max(measure(form, text, at) for form in self._forms)


@lru_cache(maxsize=32)
def _secrets(values: frozenset[str]) -> Secrets:
    return Secrets(values)


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text with these secrets masked."""
    return _secrets(frozenset(secrets)).masked(text)


def _decoded(match: re.Match[str]) -> str:
    """Decode one token."""
    kind, token = match.lastgroup, match[0]
    if kind is None:
        return ""
    if kind == "c":
        return _NAMED.get(token[-1], token[-1])
    if kind == "w":
        return " "
    if kind == "q":
        return token[0] if token == token[0] * len(token) else "'"
    if kind == "d":
        return token[0]
    if kind == "h":
        import html  # imported here because few texts have entities

        return html.unescape(token)
    if kind == "l":
        return _read(token.encode("latin-1"))
    if kind == "s":
        return token.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    if kind in "xp":
        return _read(bytes.fromhex(re.sub(r"[\\x%]", "", token)))
    if kind == "o":
        return _read(bytes(int(each, 8) for each in re.findall("[0-7]+", token)))
    number = int(match[kind], 16)
    return chr(number) if number <= 0x10FFFF else token[1:]


def _read(data: bytes) -> str:
    """Return the text of bytes in UTF-8; bytes that are not are in Latin-1."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(chr(ord(char) - 0xDC00) if 0xDC80 <= ord(char) <= 0xDCFF else char for char in text)


def _origins(text: str, deepest: int, token: re.Pattern[str]) -> list[tuple[list[int], list[int]]]:
    """Return for each layer where each of its characters begins and ends in the text."""
    starts, ends = list(range(len(text))), list(range(1, len(text) + 1))
    found = [(starts, ends)]
    layer = text
    for _ in range(deepest):
        parts: list[str] = []
        first: list[int] = []
        last: list[int] = []
        done = 0
        for match in token.finditer(layer):
            start, end = match.span()
            decoded = _decoded(match)
            parts += layer[done:start], decoded
            first += starts[done:start]
            last += ends[done:start]
            first += [starts[start]] * len(decoded)
            last += [ends[end - 1]] * len(decoded)
            done = end
        layer = "".join(parts) + layer[done:]
        starts, ends = first + starts[done:], last + ends[done:]
        found.append((starts, ends))
    return found


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return the text with one mask for each group of spans that overlap."""
    kept, end = [], 0
    for start, after in spans:
        if start >= end:
            kept += [text[end:start], MASK]
        end = max(end, after)
    return "".join(kept) + text[end:]


def _any_of(starts: Iterable[str]) -> re.Pattern[str]:
    """Return the regular expression of the places where one of the texts begins."""
    rests: dict[str, list[str]] = {}
    for start in sorted(starts):
        rests.setdefault(start[0], []).append(re.escape(start[1:]))
    if not rests:
        return re.compile("(?!)")
    # Grouped by the first character, so that no place of a text is compared with each of thousands of forms.
    starting = "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in rests.items())
    return re.compile(f"(?=({starting}))")


def _is_word(form: str, text: str, start: int) -> bool:
    """Return true unless the form is a short word that is a part of a longer one here."""
    if len(form) >= WORD_LENGTH or not form.isalnum():
        return True
    end = start + len(form)
    return not any(char.isascii() and char.isalnum() for char in (text[start - 1 : start], text[end : end + 1]) if char)


def _cut_off_start(form: str, text: str, at: int) -> int:
    """Return how many characters after a place of the text are the end of a form."""
    probe = text[at : at + CUT_LENGTH]
    place = form.find(probe, 1) if len(probe) == CUT_LENGTH else -1
    while place > 0:
        if text.startswith(form[place:], at):
            return len(form) - place
        place = form.find(probe, place + 1)
    return 0


def _cut_off_end(form: str, text: str, at: int) -> int:
    """Return how many characters before a place of the text are the beginning of a form."""
    probe = text[max(0, at - CUT_LENGTH) : at]
    place = form.rfind(probe, 0, -1) if len(probe) == CUT_LENGTH else -1
    while place >= 0:
        if text.endswith(form[: place + CUT_LENGTH], 0, at):
            return place + CUT_LENGTH
        place = form.rfind(probe, 0, place + CUT_LENGTH - 1)
    return 0


__all__ = ["MASK", "MIN_LENGTH", "NOT_SECRET", "WORD_LENGTH", "Secrets", "is_maskable", "is_telling", "masked"]
