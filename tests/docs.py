"""Reading the documentation: its sections, tables and examples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """One fenced block."""

    #: Relative to the root.
    page: str
    #: Line of its fence.
    line: int
    language: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that its first line, a comment, names."""
        match = re.match(r"# ([\w/.-]+\.\w+)\n", self.text)
        return match[1] if match else None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def examples(*languages: str, page: str = "") -> list[Example]:
    """Return the blocks in some languages, of all pages or of one, in their order; no language: all blocks."""
    found = []
    for path in PAGES:
        if page and name_of(path) != page:
            continue
        text = path.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if not languages or match[1] in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Example(name_of(path), line, match[1], match[2]))
    return found


def section(page: str, heading: str) -> str:
    """Return the text under a heading, up to the next one of its level or above."""
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    plain = _FENCE.sub(lambda match: re.sub(r"(?m)^#", " ", match[0]), text)
    found = list(_HEADING.finditer(plain))
    for number, match in enumerate(found):
        if match[2] == heading:
            ends = (later.start() for later in found[number + 1 :] if len(later[1]) <= len(match[1]))
            return text[match.end() : next(ends, len(text))]
    raise AssertionError(f"{page} has no section {heading!r}; it has {[match[2] for match in found]}")


def headings(page: str, level: int) -> list[str]:
    text = _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return [match[2] for match in _HEADING.finditer(text) if len(match[1]) == level]


def tables(text: str) -> list[dict[str, list[str]]]:
    """Return each table as first cell -> the other cells; the code marks of the first cell are taken off."""
    found: list[dict[str, list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in block.strip().splitlines()
        ]
        found.append({row[0].strip("*").strip("`"): row[1:] for row in rows[2:]})
    return found
