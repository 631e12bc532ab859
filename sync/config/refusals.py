"""Checks of a pipeline file across its values, without connecting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from syncblocks.connectors import registry
from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.file_classes import file_of, is_of_file
from syncblocks.connectors.settings import resolve_path

from ..errors import nearest_match
from .blocks import RESERVED_PARENTS, StreamEntry
from .expect import NEEDS_SCHEDULE
from .globs import exact_name, glob_matches, is_glob
from .masks import HASH
from .other_systems import way_to
from .other_words import table_of_others
from .pipeline import Pipeline
from .yaml_document import Loc

#: Notes a mistake: its place, a message, and optionally `allowed` and `word`.
Report = Callable[..., None]

_OF_COLUMNS = ("include", "exclude", "mask")

STORE_SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg", "postgres")


def check_pipeline(pipeline: Pipeline, folder: Path, report: Report) -> None:
    """Check everything that needs no connection.

    Args:
        pipeline: the pipeline, its values of the right types.
        folder: folder of the pipeline file.
        report: notes a mistake; `word` is the value to find a nearest match for.
    """
    _check_connectors(pipeline, folder, report)
    blocks = _check_blocks(pipeline, report)
    _check_parents(pipeline, blocks, report)
    _check_files(pipeline, folder, report)
    _check_renames(pipeline, report)
    finds_place = pipeline.source.connector in registry.KEEP_OWN_BOOKMARKS
    _check_streams(pipeline.streams, report, needs_bookmarks=not finds_place)
    _check_masks(pipeline, report)
    for place, entry in enumerate(pipeline.streams):
        if pipeline.schedule is None and entry.expect is not None and entry.expect.within is not None:
            report(("streams", place, "expect"), f"`within` {NEEDS_SCHEDULE}")


def _check_connectors(pipeline: Pipeline, folder: Path, report: Report) -> None:
    for role, name in (("source", pipeline.source.connector), ("destination", pipeline.destination.connector)):
        position = 0 if role == "source" else 1
        if is_of_file(name):  # executed when the connector is made, as callbacks and transformers are
            if not file_of(name, folder).is_file():
                report((role, "connector"), f"there is no file {file_of(name, folder)}")
            continue
        # The table first: looking for entry points reads the metadata of every installed package.
        if registry.CONNECTORS.get(name, (None, None))[position] or name in registry.names(role):
            continue
        if name.endswith(".py"):
            report((role, "connector"), f"name your own class with its file: ./{name.lstrip('./')}:CLASS")
        elif way := way_to(name, role):
            report((role, "connector"), f"this system has no connector of its own: {way}")
        else:
            report((role, "connector"), f"there is no such {role} connector", allowed=registry.names(role), word=name)


def _check_blocks(pipeline: Pipeline, report: Report) -> dict[str, Loc]:
    """Check the names of blocks; return the place of each block that can be a parent."""
    places: list[tuple[str, Loc]] = [(pipeline.source.block, ("source",))]
    places += [(block.block, ("transformers", place)) for place, block in enumerate(pipeline.transformers)]
    places.append((pipeline.destination.block, ("destination",)))
    parents = len(places)
    places += [(block.block, ("callbacks", place)) for place, block in enumerate(pipeline.callbacks)]
    seen: dict[str, Loc] = {}
    for name, loc in places:
        if name in RESERVED_PARENTS:
            report((*loc, "block"), f"{name!r} is reserved: give the block another name", safe=False)
        if name in seen:
            first = seen[name][0] if len(seen[name]) == 1 else f"{seen[name][0]}[{seen[name][1]}]"
            report((*loc, "block"), f"{first} has the same block name: give one of them another", safe=True)
        seen[name] = loc
    return dict(places[:parents])


def _check_parents(pipeline: Pipeline, blocks: dict[str, Loc], report: Report) -> None:
    known = (*blocks, *RESERVED_PARENTS)
    transformers = tuple(block.block for block in pipeline.transformers)
    groups = {
        "source": (pipeline.source.block,),
        "transformers": transformers,
        "destination": (pipeline.destination.block,),
    }
    for place, callback in enumerate(pipeline.callbacks):
        covered: dict[str, str] = {}
        for item, parent in enumerate(callback.on):
            loc = ("callbacks", place, "on", item) if "on" in callback.model_fields_set else ("callbacks", place)
            if parent not in known:
                report(loc, "there is no such parent", allowed=known, word=parent)
            if parent == "transformers" and not transformers:
                report(loc, "the pipeline has no transformers", allowed=known)
            for block in groups.get(parent, (parent,)):
                if block in covered:
                    report(loc, "names a parent twice; the function would be called twice")
                covered[block] = parent


def _check_files(pipeline: Pipeline, folder: Path, report: Report) -> None:
    for section, files in (
        ("transformers", [block.file for block in pipeline.transformers]),
        ("callbacks", [block.file for block in pipeline.callbacks]),
    ):
        for place, file in enumerate(files):
            loc: Loc = (section, place, "file")
            if file is None:
                continue
            try:
                path = resolve_path(file, folder)
                is_file = path.is_file()
                others = [] if is_file or not path.parent.is_dir() else sorted(path.parent.glob("*.py"))
            except (OSError, ValueError, RuntimeError, ConnectorConfigError):
                report(loc, "is not a readable path")
                continue
            if not is_file:
                near = nearest_match(path.name, [other.name for other in others])
                nearest = None if near is None else str(Path(file).parent / near)
                what = "is a folder, not a file" if path.is_dir() else "there is no such file"
                report(loc, f"{what}; relative paths count from the pipeline file's folder", nearest=nearest)
            if path.suffix != ".py":
                report(loc, "is not a Python file (.py)")


def _check_renames(pipeline: Pipeline, report: Report) -> None:
    for place, block in enumerate(pipeline.transformers):
        seen: set[str] = set()
        for old, new in block.rename.items():
            if new in seen:
                report(("transformers", place, "rename", old), "two columns would get the same name")
            seen.add(new)


def _check_streams(entries: Sequence[StreamEntry], report: Report, *, needs_bookmarks: bool) -> None:
    if not entries:
        report(("streams",), 'is empty: name at least one stream, for all of them `- stream: "*"`')
    if all(entry.selected is False for entry in entries):
        report(("streams",), "every entry has `selected: false`, so nothing would be synced")
    queries: set[str] = set()
    earlier: dict[str, int] = {}
    for place, entry in enumerate(entries):
        loc: Loc = ("streams", place)
        _check_repeated(entries, earlier.get(entry.stream), place, report)
        earlier[entry.stream] = place
        if entry.query is not None:
            if exact_name(entry.stream) is None:
                report((*loc, "stream"), "is the name of a query's stream, and cannot be a pattern")
            if entry.stream in queries:
                report((*loc, "query"), "another entry has a query with this name: give this stream another name")
            queries.add(entry.stream)
        if entry.destination_table is not None and (ours := table_of_others(entry.destination_table)):
            report((*loc, "destination_table"), ours)
        if entry.replication_method == "INCREMENTAL":
            _check_incremental(entries, place, report, needs_bookmarks=needs_bookmarks)
        if entry.write_disposition in ("merge", "history") and entry.key_properties == ():
            what = f"is empty, and a {entry.write_disposition} needs keys: name them, or write append"
            report((*loc, "key_properties"), what)
        if entry.columns is not None and not any(getattr(entry.columns, key) is not None for key in _OF_COLUMNS):
            report((*loc, "columns"), "needs include, exclude or mask", allowed=_OF_COLUMNS)


def _check_repeated(entries: Sequence[StreamEntry], earlier: int | None, place: int, report: Report) -> None:
    """Refuse an entry of the same name as an earlier one that refines nothing, or names another table."""
    if earlier is None or entries[place].query is not None:
        return
    entry, other = entries[place], entries[earlier]
    if entry == other:
        report(("streams", place), f"says what streams[{earlier}] says: leave one of them out")
    elif entry.destination_table and other.destination_table and entry.destination_table != other.destination_table:
        report(
            ("streams", place, "destination_table"),
            f"streams[{earlier}] writes the same stream to another table, but a stream has one table: write a "
            "second pipeline file for the other table",
        )


def _check_masks(pipeline: Pipeline, report: Report) -> None:
    for place, entry in enumerate(pipeline.streams):
        rules = () if entry.columns is None else entry.columns.mask or ()
        if pipeline.mask_key is None and any(rule.how == HASH for rule in rules):
            report(
                ("streams", place, "columns", "mask"),
                "`hash` needs `mask_key` of the pipeline, a secret of at least 32 bytes: "
                "mask_key: \"{{ secret('mask_key') }}\"",
            )


def _check_incremental(entries: Sequence[StreamEntry], place: int, report: Report, *, needs_bookmarks: bool) -> None:
    entry = entries[place]
    loc: Loc = ("streams", place)
    if entry.write_disposition == "replace":
        report(
            (*loc, "write_disposition"),
            "with replace, an INCREMENTAL stream would leave only its new records in the table: use merge, append, "
            "or FULL_TABLE",
            allowed=("append", "merge"),
        )
    if entry.bookmark_properties or not needs_bookmarks:
        return
    message = "INCREMENTAL needs bookmark_properties: columns that grow, e.g. [updated_at]"
    if "bookmark_properties" in entry.model_fields_set:
        report((*loc, "bookmark_properties"), message)
        return
    # Another entry for the same streams may name them; only the catalog shows which entry applies.
    if not any(other.bookmark_properties and _may_overlap(entry.stream, other.stream) for other in entries):
        report((*loc, "replication_method"), message)


def _may_overlap(first: str, second: str) -> bool:
    if is_glob(first) and is_glob(second):
        return True
    return glob_matches(first, second) or glob_matches(second, first)


def check_store(store: str, folder: Path, report: Report) -> str:
    """Return the URL of a run store; a relative SQLite path starts at the pipeline file's folder.

    Reports what is no URL, or one of another database; never shows the URL, which may contain a password.
    """
    loc: Loc = ("store",)
    scheme, separator, rest = store.partition("://")
    if not separator:
        report(loc, "must be a URL: sqlite:///.syncblocks/store.db or postgresql://user@host/database")
    if scheme not in STORE_SCHEMES:
        report(loc, "there is no such kind of run store", allowed=("sqlite", "postgresql"), word=scheme)
    if scheme == "sqlite":
        path, _, query = rest.partition("?")
        if not path.startswith("/") or path in ("/", "/:memory:"):
            report(loc, "must name a file: sqlite:///relative.db or sqlite:////absolute.db")
            return store
        try:
            absolute = resolve_path(path[1:], folder)
        except (ConnectorConfigError, RuntimeError):
            report(loc, "is not a usable path")
            return store
        return f"sqlite:///{absolute}" + (f"?{query}" if query else "")
    if not rest.strip("/"):
        report(loc, "must name a host or a database: postgresql://user@host/database")
    # SQLAlchemy does not accept the short scheme.
    return store.replace("postgres://", "postgresql://", 1) if scheme == "postgres" else store
