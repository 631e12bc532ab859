"""Find the class of a connector by its name: in one table, among entry points, or in a file. Imports lazily."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import ConnectorConfigError, ConnectorError
from .file_classes import class_of_file, is_of_file, lacks
from .settings import is_installed

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from pydantic import BaseModel

    from .protocols import Destination, Source

#: name -> (source class, destination class) as ".module:Class" of this package; None where there is none.
CONNECTORS: dict[str, tuple[str | None, str | None]] = {
    "airbyte": (".airbyte.source:AirbyteSource", None),
    "arrow": (".files.arrow_source:ArrowSource", None),
    "csv": (".files.csv_source:CSVSource", ".files.destination:CSVDestination"),
    "delta": (None, ".delta.destination:DeltaDestination"),
    "duckdb": (".duckdb:DuckDBSource", ".duckdb:DuckDBDestination"),
    "json": (".files.json_source:JSONSource", None),
    "jsonl": (
        ".files.jsonl_source:JSONLSource",
        ".files.destination:JSONLDestination",
    ),
    "mariadb": (
        ".mysql.source:MySQLSource",
        ".mysql.destination:MySQLDestination",
    ),
    "memory": (".memory:MemorySource", ".memory:MemoryDestination"),
    "mysql": (
        ".mysql.source:MySQLSource",
        ".mysql.destination:MySQLDestination",
    ),
    "parquet": (
        ".files.parquet_source:ParquetSource",
        ".files.destination:ParquetDestination",
    ),
    "postgres": (
        ".postgres.source:PostgresSource",
        ".postgres.destination:PostgresDestination",
    ),
    "singer": (
        ".singer.source:TapSource",
        ".singer.target:SingerDestination",
    ),
    "sqlalchemy": (
        ".sqlalchemy.source:SQLAlchemySource",
        ".sqlalchemy.destination:SQLAlchemyDestination",
    ),
    "sqlite": (".sqlite:SQLiteSource", ".sqlite:SQLiteDestination"),
}

#: Connector that is no source -> the class that reads back what its destination has written.
READERS = {"delta": ".delta.reader:DeltaReader"}

#: Connector -> extra that installs its drivers, and the modules of these; they are imported when they are used.
EXTRAS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "postgres": ("postgres", ("adbc_driver_manager", "adbc_driver_postgresql", "asyncpg")),
    "delta": ("delta", ("deltalake",)),
    "duckdb": ("duckdb", ("duckdb",)),
    "mysql": ("mysql", ("pymysql",)),
    "mariadb": ("mysql", ("pymysql",)),
}

#: Sources that keep their own position: INCREMENTAL needs no bookmark_properties in the pipeline file.
KEEP_OWN_BOOKMARKS = frozenset({"airbyte", "singer"})

GROUPS = {"source": "syncblocks.sources", "destination": "syncblocks.destinations"}


def names(role: str) -> list[str]:
    """Return the names of all connectors of a role ("source" or "destination"), sorted."""
    position = 0 if role == "source" else 1
    own = {name for name, classes in CONNECTORS.items() if classes[position]}
    return sorted(own | {entry.name for entry in _entry_points(role)})


def connector_class(name: str, role: str, folder: Path | None = None) -> type[Any]:
    """Import the class of a connector.

    Args:
        name: the connector's name, or `FILE.py:Class`.
        role: "source", "destination", or "reader": what reads a destination back, which for most is the source.
        folder: where relative paths of files start, the pipeline file's; default: the working directory.

    Raises:
        ConnectorConfigError: the name is unknown (the message has the nearest one), or the driver is not installed; a
            file does not load, or its class is none of this role.
    """
    reader = READERS.get(name) if role == "reader" else None
    role = "source" if role == "reader" else role
    if is_of_file(name):
        found = class_of_file(name, folder or Path.cwd())
        if missing := lacks(found, role):
            text = f"class {found.__name__} is not a {role}: it lacks {', '.join(missing)}"
            raise ConnectorConfigError(text, connector=name)
        return _listing(found)
    path = reader or CONNECTORS.get(name, (None, None))[0 if role == "source" else 1]
    if path is None:
        for entry in _entry_points(role).select(name=name):
            return _listing(cast("type[Any]", entry.load()))
        known = names(role)
        import difflib

        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConnectorConfigError(f"no {role} connector {name!r}{hint} Known: {', '.join(known)}", connector=name)
    module, _, attribute = path.partition(":")
    try:
        return cast("type[Any]", getattr(importlib.import_module(module, __package__), attribute))
    except ModuleNotFoundError as error:
        if name not in EXTRAS or (error.name or "").split(".")[0] == "syncblocks":
            raise
        raise _lacking(name, str(error.name)) from error


def _listing(found: type[Any]) -> type[Any]:
    """Return a class of somebody's own, whose list of capabilities is right."""
    from .capabilities import listed_by  # it imports Arrow, which a load of a pipeline file does not need

    listed_by(found)
    return found


def _lacking(name: str, module: str) -> ConnectorConfigError:
    extra, _ = EXTRAS[name]
    return ConnectorConfigError(f"connector {name!r} needs {module}: pip install 'syncblocks[{extra}]'", connector=name)


def _installed_class(name: str, role: str, folder: Path) -> type[Any]:
    """Return the class of a connector whose drivers are installed.

    Raises:
        ConnectorConfigError: as `connector_class`.
    """
    for module in EXTRAS[name][1] if name in EXTRAS else ():
        if not is_installed(module):
            raise _lacking(name, module)
    return connector_class(name, role, folder)


def settings_model(name: str, role: str, folder: Path | None = None) -> type[BaseModel] | None:
    """Return the pydantic model of a connector's config; None where it states none, or a file's class has another role.

    Raises:
        ConnectorConfigError: as `connector_class`.
    """
    of_file = "source" if role == "reader" else role
    if is_of_file(name) and lacks(class_of_file(name, folder or Path.cwd()), of_file):
        return None
    model: type[BaseModel] | None = getattr(connector_class(name, role, folder), "settings", None)
    return model


def make_source(name: str, config: Mapping[str, Any], folder: Path) -> Source:
    """Make a source from its config; relative paths count from `folder`. Opens nothing."""
    return cast("Source", _made(name, "source", config, folder))


def make_reader(name: str, config: Mapping[str, Any], folder: Path) -> Source:
    """Make what reads back the tables of a destination, as `make_source` does."""
    return cast("Source", _made(name, "reader", config, folder))


def make_destination(name: str, config: Mapping[str, Any], folder: Path) -> Destination:
    """Make a destination from its config; relative paths count from `folder`. Opens nothing."""
    return cast("Destination", _made(name, "destination", config, folder))


def _made(name: str, role: str, config: Mapping[str, Any], folder: Path) -> Any:
    """Make a connector; what an outside class raises is an error of that class.

    Raises:
        ConnectorError: of the class itself, as its protocol says.
        ConnectorConfigError: as `connector_class`; any other error of an outside class, with its file and line.
    """
    found = _installed_class(name, role, folder)
    if name in CONNECTORS:
        return found(config, folder)
    try:
        return found(config, folder)
    except ConnectorError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        where = f", raised at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        text = (
            f"class {found.__name__}(config, folder) cannot be created: {type(error).__name__}: {error}{where}; a "
            f"{role} is created with the mapping `config` and the pipeline's folder"
        )
        raise ConnectorConfigError(text, connector=name) from error


def _entry_points(role: str) -> EntryPoints:
    """Search all installed packages. A run with shipped connectors saves the search and the import."""
    from importlib.metadata import entry_points

    return entry_points(group=GROUPS[role])
