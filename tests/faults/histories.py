"""Histories of a pipeline, drawn at random: its options, and what happens at its source between two runs.

The options of a pipeline file meet each other in pairs: of some drawn histories the next one is always that with the
most pairs of options that no history had before.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from tests import services

#: What a row of the source may have, in this order; `id` and `at` may be NULL.
Row = dict[str, Any]

SYSTEMS = ("sqlite", "duckdb", "csv", "jsonl", "postgres", "mariadb")
FILES = ("csv", "jsonl")

#: Option -> what it may be. Some are keys of the pipeline file, others say what happens around it.
OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "source": SYSTEMS,
    "destination": SYSTEMS,
    "method": ("FULL_TABLE", "INCREMENTAL"),
    "disposition": ("append", "merge", "replace", "replace_range", None),
    "clock": ("day", "number", "second", "day and n"),
    "null_bookmarks": (None, "once", "always", "never"),
    "on_schema_change": (None, "freeze", "ignore"),
    "keys": ("declared", "configured", "none"),
    "conflict": (None, "IGNORE"),
    "columns": ("all", "include", "exclude", "exclude at first", "exclude later"),
    "transformer": (
        "none",
        "rename",
        "function",
        "function fails once",
        "rename later",
        "function later",
        "rename by case later",
    ),
    "on_rejected": (None, "keep"),
    "case": ("none", "both", "one then both", "another order"),
    "callbacks": ("none", "facts", "data", "input"),
    "after": ("nothing", "verify", "damage and verify", "damage and repair", "repair"),
    "change": (
        "insert",
        "insert below",
        "update",
        "same bookmark",
        "former value",
        "null bookmark",
        "null key",
        "new column",
        "malformed line",
        "delete",
    ),
}

#: Change -> the options under which it matters most.
TELLING: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "same bookmark": {"method": ("INCREMENTAL",)},
    "former value": {"method": ("INCREMENTAL",), "disposition": ("merge", "append"), "columns": ("all", "include")},
    "null bookmark": {
        "method": ("INCREMENTAL",),
        "disposition": ("merge", "append", None),
        "null_bookmarks": ("once", "always", "never", "never"),
        "transformer": ("none",),
        "after": ("verify", "repair", "damage and repair"),
    },
    "null key": {
        "on_rejected": ("keep",),
        "disposition": ("merge", "replace", None),
        "callbacks": ("data", "input"),
    },
    "malformed line": {
        "on_rejected": ("keep",),
        "after": ("verify", "repair"),
        "transformer": ("none", "rename", "function", "function fails once"),
    },
}

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """What stands in the source at one run."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    #: A line of the file that is no record.
    is_malformed: bool = False


@dataclass(frozen=True)
class Turn:
    """One run: the source that it meets, and the settings that the file has by then."""

    source: Source
    #: Of the transformer: columns that are renamed, and whether it adds one; None: there is no transformer.
    rename: Mapping[str, str] | None
    adds: bool
    #: Its function raises.
    fails: bool
    include: tuple[str, ...] | None
    exclude: tuple[str, ...] | None


@dataclass(frozen=True)
class History:
    """Options, and two or three runs under them."""

    options: Options
    turns: tuple[Turn, ...]
    words: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        said = {name: value for name, value in self.options.items() if value not in (None, "none", "nothing", "all")}
        return f"{said}; then {'; '.join(self.words)}"


def seed() -> str:
    """Return what names this session's histories: what the environment says, else another one each time."""
    return os.environ.get("SYNCBLOCKS_HISTORIES") or os.environ.get(services.SESSION, "")


def drawn(seed: str, count: int) -> list[History]:
    """Return so many histories, always the same ones of a seed."""
    chance = random.Random(seed)
    seen: set[tuple[tuple[str, Any], ...]] = set()
    found = []
    for number in range(count):
        candidates = [_options(chance) for _ in range(30)]
        best = max(candidates, key=lambda options: len(set(pairs(options)) - seen))
        seen.update(pairs(best))
        found.append(_History(best, random.Random(f"{seed}:{number}")).history())
    return found


def pairs(options: Options) -> Iterator[tuple[tuple[str, Any], ...]]:
    """Yield each two options that meet."""
    return combinations(options.items(), 2)


def _options(chance: random.Random) -> Options:
    """Draw options that make sense together; one in twenty pipelines is refused."""
    may_be_refused = chance.random() < 0.05
    while True:
        options = {name: chance.choice(values) for name, values in OPTIONS.items()}
        if chance.random() < 0.8:
            options |= {name: chance.choice(values) for name, values in TELLING.get(options["change"], {}).items()}
        if _is_possible(options) and (may_be_refused or not is_refused(options)):
            return options


def _is_possible(options: Options) -> bool:
    source, change = options["source"], options["change"]
    if source in FILES and options["keys"] == "declared":
        return False
    if options["case"] != "none" and source not in (*FILES, "postgres"):
        return False
    if change == "malformed line" and source not in FILES:
        return False
    if options["transformer"] == "rename by case later" and options["columns"].startswith("exclude"):
        return False  # VAL would come alone, and be val
    return not (change == "null key" and options["keys"] == "declared")


def disposition(options: Options) -> str:
    """Return how the stream is written, the default filled in."""
    if options["disposition"]:
        return str(options["disposition"])
    if options["method"] == "FULL_TABLE":
        return "replace"
    return "append" if options["keys"] == "none" else "merge"


def is_refused(options: Options) -> bool:
    """Whether these options do not go together, and the file is an error."""
    how = disposition(options)
    is_incremental = options["method"] == "INCREMENTAL"
    if how == "merge" and options["keys"] == "none":
        return True
    if how == "replace_range" and options["conflict"]:
        return True
    return is_incremental and (how.startswith("replace") or (how == "append" and options["null_bookmarks"] == "always"))


class _History:
    """Draws what happens to one source."""

    def __init__(self, options: Options, chance: random.Random) -> None:
        self.options, self.chance = options, chance
        self.columns = ["id", "at", "val", "n"]
        if options["case"] != "none":
            self.columns.append("w")
        if options["case"] in ("both", "another order"):
            self.columns.append("W")
        self.rows: list[Row] = []
        self.former: dict[int, list[Row]] = {}
        self.is_malformed = False
        self.words: list[str] = []
        for _ in range(chance.choice((4, 5, 6))):
            self._insert(at=chance.randrange(1, 4))

    def history(self) -> History:
        runs = 3 if self.options["change"] == "former value" else self.chance.choice((2, 2, 3))
        turns = [self._turn(0)]
        for number in range(1, runs):
            happened = [*self._wanted(number), *self._beside()]
            for what in happened:
                CHANGES[what](self)
            if number == 1 and self.options["case"] == "one then both":
                self._add("W", before="w")
            if number == 1 and self.options["case"] == "another order":
                self.columns[-2:] = self.columns[:-3:-1]
            self.words.append(f"run {number + 1} after {', '.join(happened)}")
            turns.append(self._turn(number))
        return History(self.options, tuple(turns), tuple(self.words))

    def _wanted(self, number: int) -> list[str]:
        change = self.options["change"]
        if change == "former value":
            return ["same bookmark"] if number == 1 else ["former value"]
        return [change] if number == 1 else ["insert"]

    def _beside(self) -> list[str]:
        """Return what happens besides; nothing that moves the bookmark past a record that is to come back."""
        known = ("same bookmark",) if self.options["change"] == "former value" else COMMON
        return self.chance.choices(known, k=self.chance.choice((0, 1, 2)))

    def _turn(self, number: int) -> Turn:
        rows = tuple({name: row.get(name) for name in self.columns} for row in self.rows)
        source = Source(tuple(self.columns), rows, self.is_malformed)
        kind, columns = self.options["transformer"], self.options["columns"]
        is_now = number > 0 or not kind.endswith("later")
        rename = {"n": "VAL" if "case" in kind else "num"} if kind.startswith("rename") and is_now else {}
        is_out = columns == "exclude" or (columns == "exclude at first" if number == 0 else columns == "exclude later")
        return Turn(
            source,
            None if kind == "none" else rename,
            kind.startswith("function") and is_now,
            kind == "function fails once" and number == 1,
            ("id", "at", "val", "n", "w", "W")[: 4 if self.options["case"] == "none" else 5]
            if columns == "include"
            else None,
            ("val",) if is_out else None,
        )

    # ------------------------------------------------------------------ what may happen
    @property
    def _top(self) -> int:
        return max((row["at"] for row in self.rows if row["at"] is not None), default=3)

    def _insert(self, **values: Any) -> None:
        number = 1 + max((row["id"] for row in self.rows if row["id"] is not None), default=0)
        row = {"id": number, "at": self._top + self.chance.randrange(2), "val": self._value(), "n": number * 11}
        self.rows.append(row | {name: f"{name} {number}" for name in self.columns[4:]} | values)

    def insert(self) -> None:
        self._insert()

    def insert_below(self) -> None:
        self._insert(at=0)

    def insert_without_bookmark(self) -> None:
        self._insert(at=None)

    def insert_without_key(self) -> None:
        if all(row["id"] is not None for row in self.rows) and self.options["keys"] != "declared":
            self._insert(id=None)

    def update(self) -> None:
        row = self._any()
        row["at"] = self._top + 1
        row["val"] = self._value()

    def change_at_the_same_bookmark(self) -> None:
        """Mostly a record at the highest bookmark, which the next run reads again."""
        row = self._any(at=self._top) if self.chance.random() < 0.8 else self._any()
        self.former.setdefault(row["id"], []).append(dict(row))
        row["val"] = self._value()

    def go_back_to_a_former_value(self) -> None:
        known = [row for row in self.rows if row["id"] in self.former]
        if known:
            row = self.chance.choice(known)
            former = self.chance.choice(self.former[row["id"]])
            row |= {"val": former["val"], "at": former["at"]}

    def add_a_column(self) -> None:
        if "new" not in self.columns:
            self._add("new")

    def _add(self, name: str, before: str = "") -> None:
        self.columns.insert(self.columns.index(before) if before else len(self.columns), name)
        for row in self.rows:
            row[name] = f"{name} {row['id']}"

    def break_a_line(self) -> None:
        self.is_malformed = self.options["source"] in FILES

    def delete(self) -> None:
        if len(self.rows) > 4:
            self.rows.remove(self._any())

    def _any(self, **values: Any) -> Row:
        known = [row for row in self.rows if row["at"] is not None and row["id"] is not None]
        wanted = [row for row in known if all(row[name] == value for name, value in values.items())]
        return self.chance.choice(wanted or known)

    def _value(self) -> str:
        return self.chance.choice("ABC") + self.chance.choice("xyz")


CHANGES = {
    "insert": _History.insert,
    "insert below": _History.insert_below,
    "update": _History.update,
    "same bookmark": _History.change_at_the_same_bookmark,
    "former value": _History.go_back_to_a_former_value,
    "null bookmark": _History.insert_without_bookmark,
    "null key": _History.insert_without_key,
    "new column": _History.add_a_column,
    "malformed line": _History.break_a_line,
    "delete": _History.delete,
}
#: What happens beside; of the others a run fails too often.
COMMON = ("insert", "update", "same bookmark", "same bookmark", "former value", "delete", "insert below")
