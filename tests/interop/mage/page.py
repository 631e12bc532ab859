"""The page of the docs that the table makes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .table import CALLBACKS, DATA, Row

PAGE = Path(__file__).parents[3] / "docs" / "from-mage.md"

WORDS = ("works", "differently", "instead", "not yet")

_TEXT = """\
# Mage's features here, row by row

With this page you see for each feature of Mage's callbacks and of its data integration pipelines what you find here.
[Come from Mage](how-to/from-mage.md) turns a project into pipeline files. A test tries each row that works.

| The row says | It means |
|---|---|
| works | the same, under the same name or the key that is named |
| differently | the feature is here; the row says what differs |
| instead | the feature is not here; another thing does its work |
| not yet | the feature is not here |

## Callbacks

{callbacks}

## Data integration

{data}
"""


def page() -> str:
    """Return the page."""
    return _TEXT.format(callbacks=_table(CALLBACKS), data=_table(DATA))


def word(row: Row) -> str:
    """Return which of the four words a row says."""
    text = re.sub(r"^\[([^]]*)\]\([^)]*\)", r"\1", row.here)
    (found,) = (word for word in WORDS if re.match(rf"{word}\b", text))
    return found


def _table(rows: Iterable[Row]) -> str:
    lines = [f"| {row.feature} | {row.here.replace('|', chr(92) + '|')} |" for row in rows]
    return "\n".join(["| Feature | Here |", "|---|---|", *lines])
