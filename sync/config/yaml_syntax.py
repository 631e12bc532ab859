"""Say in plain words what is wrong with the syntax of a YAML file, and in which line to look."""

from __future__ import annotations

import re

import yaml

from ..errors import ConfigError

LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

#: A key, and a template behind it that nothing quotes.
_UNQUOTED = re.compile(r"([\w-]+):\s+(\{\{.*?\}\})")
#: Characters of a line in which something is looked for: the search may take the square of them.
_SEARCHED = 1000
_PLAIN_CALL = re.compile(r"""\{\{\s*\w+\((['"])\w+\1\)\s*\}\}""")

#: `key: text: text` without quotes.
_TWO_COLONS = re.compile(r"\s*(- +)*[\w.-]+:\s+[^\s\"'\[{#&*|>][^#]*?:(\s|$)")

_INDENT = "keys of one mapping, and items of one list, begin in the same column"
_NO_COLON = "a key needs a colon and a space behind it (`key: value`), an item of a list a dash and a space (`- item`)"
_ESCAPE = "in double quotes a backslash begins an escape: write two of them, or use single quotes"

#: Part of what the parser says -> the same in plain words.
_PLAIN = (
    ("expected '-' indicator", f"the indent of this line matches no line above: {_INDENT}"),
    ("expected key", f"the indent of this line matches no line above, or a quote ends too early: {_INDENT}"),
    ("mapping values are not allowed", f"this line is indented more than the line above, which has a value: {_INDENT}"),
    ("sequence entries are not allowed", "a list begins in a line of its own, below its key: `- item`"),
    ("expected ',' or '}'", "a `{` is not closed, or a comma is missing: {a: 1, b: 2}"),
    ("expected ',' or ']'", "a `[` is not closed, or a comma is missing: [a, b]"),
    ("unexpected end of stream", "a quote that begins in this line is not closed"),
    ("unknown escape", _ESCAPE),
    ("hexdec", _ESCAPE),
    ("alphabetic or numeric", "a text that begins with `*` or `&` needs quotes"),
    ("cannot start any token", "a text cannot begin with this character: put it in quotes"),
    ("expected ':'", _NO_COLON),
)


def syntax_error(error: yaml.YAMLError, text: str, shown: str) -> ConfigError:
    """Return the error of a file that is no YAML.

    Args:
        error: what the parser says.
        text: the file's content.
        shown: the file's path, as the caller gave it.
    """
    if not isinstance(error, yaml.MarkedYAMLError):
        return ConfigError("not valid YAML", path=shown)
    problem = error.problem or "cannot be understood"
    mark = error.problem_mark or error.context_mark
    if error.context_mark is not None and re.search("end of stream|',' or '", problem):
        # The place of the opening quote or bracket helps more than where something else begins.
        mark = error.context_mark
    number = 1 if mark is None else mark.line + 1
    lines = LINE_BREAK.split(text)
    line = lines[number - 1][:_SEARCHED] if number <= len(lines) else ""
    indent = re.match(r"[ \t]*", line)
    if indent is not None and "\t" in indent.group():
        depth = indent.group().count("\t") or 1
        key = re.match(r"(- {1,9})?[\w-]{1,99}:", line.strip())
        example = f": {'  ' * depth}{key.group()} ..." if key else ""
        return ConfigError(f"a tab cannot indent YAML: use spaces{example}", path=shown, line=number)
    if advice := unquoted(line):
        return ConfigError(advice, path=shown, line=number)
    if re.search("mapping values are not|expected ':'", problem):
        if _TWO_COLONS.match(line):
            return ConfigError(
                "not valid YAML: a text that holds a colon and a space needs quotes", path=shown, line=number
            )
        if (bare := _without_colon(lines, number)) is not None:
            return ConfigError(f"not valid YAML: {_NO_COLON}", path=shown, line=bare)
    if re.match(r"-[^\s-]", line.strip()):
        return ConfigError(f"not valid YAML: {_NO_COLON}", path=shown, line=number)
    plain = next((words for part, words in _PLAIN if part in problem), problem)
    return ConfigError(f"not valid YAML: {plain}", path=shown, line=number)


def _without_colon(lines: list[str], number: int) -> int | None:
    """Return the number of the nearest line above that has text, if it is neither `key: value` nor `- item`."""
    for place in range(number - 1, 0, -1):
        line = lines[place - 1][:_SEARCHED].strip()
        if line and not line.startswith("#"):
            if re.match(r"-[^\s-]", line):
                return place
            return None if re.search(r":(\s|$)", line) or line.startswith(("- ", "---")) else place
    return None


def unquoted(line: str) -> str:
    """Return how to write a template that lacks its quotes; empty: there is none in the line."""
    found = _UNQUOTED.search(line[:_SEARCHED])
    if found is None:
        return ""
    # A default may be a secret, so only a template that is a plain call is shown.
    template = re.sub('"', "'", found[2]) if _PLAIN_CALL.fullmatch(found[2]) else "{{ ... }}"
    return f'a template needs quotes, else YAML takes its braces for a mapping: {found[1]}: "{template}"'
