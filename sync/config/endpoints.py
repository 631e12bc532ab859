"""Infer a connector and its config from a place typed by a user: by URL scheme, suffix, or content.

Reads folders, lists of archives and the first bytes of files; connects to nothing. A password becomes a reference to
an environment variable.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from syncblocks.connectors.registry import CONNECTORS
from syncblocks.connectors.struct_helpers import replace

from ..errors import ConfigError, nearest_match
from .one_file import one_file
from .other_systems import package_of
from .templates import has_template

#: URL scheme -> connector.
SCHEMES = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "mysql": "mysql",
    "mysql+pymysql": "mysql",
    "mariadb": "mariadb",
    "mariadb+pymysql": "mariadb",
    "duckdb": "duckdb",
    "sqlite": "sqlite",
}

#: Connectors of files, which no scheme of a URL names.
_FILES = ("arrow", "csv", "json", "jsonl", "parquet")

#: Suffix of a file, or of a folder of files -> connector.
SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".duckdb": "duckdb",
    ".ddb": "duckdb",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
}
#: Suffix of an archive, in which files are read.
_ARCHIVE = ".zip"
_COMPRESSIONS = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", _ARCHIVE)
#: Suffixes of workbooks, which nothing here reads.
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")

#: Connectors of files, of embedded databases, and of servers.
_FILES = ("csv", "json", "jsonl", "parquet", "arrow")
_DATABASES = ("duckdb", "sqlite")
_SERVERS = ("postgres", "mysql", "mariadb")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CREDENTIALS = re.compile(r"(://[^/@?#\s]*?:)([^/?#\s]*)(@)")
_SECRET_PARAMETER = re.compile(
    r"[?&;](?:[\w-]*(?:passw|pwd|secret|token|credential|signature)[\w-]*|sig|key)=", re.IGNORECASE
)
_FORMS_OF_SERVERS = "postgresql://..., mysql://..., mariadb://..."
_FORMS_OF_ALL = "env:NAME for a URL in an environment variable, or connector:path such as parquet:out"
#: Role -> what a place may be.
_FORMS = {
    "source": f"{_FORMS_OF_SERVERS}, a file (x.csv, x.parquet, x.jsonl, x.json, x.arrow, x.duckdb, x.db), a folder or "
    f"glob of such files, {_FORMS_OF_ALL}",
    "destination": f"{_FORMS_OF_SERVERS}, a file (x.csv, x.jsonl, x.parquet, x.duckdb, x.db), a folder of such files, "
    f"{_FORMS_OF_ALL}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The connector of a place, with its config."""

    connector: str
    #: Config for the pipeline file, without passwords.
    config: dict[str, str]
    #: Name of the place: a database's name or a file's stem.
    name: str
    #: The only table of a destination that is one file; empty: it is a folder or a database.
    table: str = ""
    #: Environment variables that the config needs and that are not set.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def infer(text: str, role: str, folder: Path, environ: Mapping[str, str]) -> Endpoint:
    """Infer the connector of a place, and its config.

    Args:
        text: the place as typed.
        role: `source` or `destination`.
        folder: start of relative paths.
        environ: environment variables.

    Raises:
        ConfigError: it cannot be inferred, or contains a secret that must not be written to a file.
    """
    key = "SRC" if role == "source" else "DST"
    text = text.strip()
    if text.startswith("env:"):
        return _from_variable(text.removeprefix("env:"), role, key, environ)
    named, _, rest = text.partition(":")
    if named in _FILES and rest.startswith("//"):
        raise ConfigError(f"{_shown(text)!r} is no URL", key=key, nearest=_shown(f"{named}:{rest.removeprefix('//')}"))
    if named in CONNECTORS and rest and not rest.startswith("//"):
        return _as_file(_named(named, rest, key, folder), rest, role, key, folder)
    match = _SCHEME.match(text)
    if match is None:
        return _as_file(_path(text, role, key, folder), text, role, key, folder)
    scheme = match[1].lower()
    if scheme in SCHEMES:
        return _database(SCHEMES[scheme], text, role, key, environ)
    if _has_dialect(scheme):
        return _database("sqlalchemy", text, role, key, environ)
    return _as_file(_remote_file(text, scheme, role, key), text, role, key, folder)


def joined(places: Sequence[str], folder: Path) -> str:
    """Return the glob that a shell has expanded to these files; a single place is returned as it is.

    Raises:
        ConfigError: they are not all files of one suffix in one folder.
    """
    if len(places) == 1:
        return places[0]
    paths = [Path(place) for place in places]
    parents, suffixes = {path.parent for path in paths}, {path.suffix for path in paths}
    if len(parents) == len(suffixes) == 1:
        (parent,), (suffix,) = parents, suffixes
        there = {path.name for path in (folder / parent).glob(f"*{suffix}")}
        if suffix and there == {path.name for path in paths}:
            return str(parent / f"*{suffix}")
    message = f"takes one source and one destination, got {len(places) + 1}"
    raise ConfigError(f"{message}: put a glob into quotes, and name streams by --stream", key="SRC")


def _from_variable(name: str, role: str, key: str, environ: Mapping[str, str]) -> Endpoint:
    value = environ.get(name)
    if not value:
        near = nearest_match(name, [known for known in environ if _SCHEME.match(environ[known])])
        raise ConfigError(f"environment variable {name!r} is not set", key=key, nearest=near)
    match = _SCHEME.match(value)
    connector = SCHEMES.get(match[1].lower()) if match else None
    if connector is None and match is not None and _has_dialect(match[1].lower()):
        connector = "sqlalchemy"
    if connector is None:
        known = ", ".join(sorted({f"{scheme}://" for scheme in SCHEMES if "+" not in scheme}))
        raise ConfigError(f"environment variable {name!r} holds no URL of a database ({known})", key=key)
    return Endpoint(connector=connector, config={"url": _reference(name)}, name=_name_of(value, role))


def _named(connector: str, place: str, key: str, folder: Path) -> Endpoint:
    if connector not in (*_FILES, *_DATABASES):
        raise ConfigError(f"{connector}: takes a URL ({connector}://...), not a path", key=key)
    return Endpoint(connector=connector, config={"path": place}, name=_stem(Path(place).name))


def _database(connector: str, url: str, role: str, key: str, environ: Mapping[str, str]) -> Endpoint:
    name = _name_of(url, role)
    if connector in _DATABASES:
        path = url.partition("://")[2].removeprefix("/")
        if not path:
            raise ConfigError(f"{url!r} has no path of a file: write {connector}:///file", key=key)
        return Endpoint(connector=connector, config={"path": path}, name=name)
    known = _variable_with(url, environ)
    if known is not None and _holds_secret(url):
        return Endpoint(connector=connector, config={"url": _reference(known)}, name=name)
    if has_template(url):
        return Endpoint(connector=connector, config={"url": url}, name=name)
    if _SECRET_PARAMETER.search(url):
        raise ConfigError(
            "the URL carries a secret after `?`, which must not be written to a file: put the whole URL into an "
            "environment variable, and write env:NAME",
            key=key,
        )
    match = _CREDENTIALS.search(url)
    rest = url.partition("://")[2] if match is None else url[match.end() :]
    if "@" in rest and (match is not None or ":" in rest.rpartition("@")[0]):
        raise ConfigError(
            "the end of the password is ambiguous: write `@`, `/`, `?`, `#` and `:` in it as %40, %2F, %3F, %23, %3A",
            key=key,
        )
    if match is None or not match[2]:
        return Endpoint(connector=connector, config={"url": url}, name=name)
    variable = _variable_with(match[2], environ) or _free_name(f"{role.upper()}_PASSWORD", match[2], environ)
    safe = f"{url[: match.start(2)]}{_reference(variable)}{url[match.end(2) :]}"
    missing = {} if environ.get(variable) == match[2] else {variable: match[2]}
    return Endpoint(connector=connector, config={"url": safe}, name=name, environment=missing)


def _remote_file(url: str, scheme: str, role: str, key: str) -> Endpoint:
    connector = _by_suffix(urlsplit(url).path)
    if connector is None and (package := package_of(scheme.partition("+")[0])):
        raise ConfigError(f"{scheme}:// needs a dialect of SQLAlchemy: pip install {package}", key=key)
    if connector is None:
        near = nearest_match(scheme, list(SCHEMES))
        hint = f"{scheme}:// is no known database" if near else f"the kind of files in {scheme}://... is unknown"
        raise ConfigError(
            f"{hint}; for files say which: a suffix ({', '.join(sorted(set(SUFFIXES)))}) or connector:url",
            key=key,
            nearest=f"{near}://" if near else None,
        )
    if _holds_secret(url):
        raise ConfigError(
            "the URL carries a secret, which must not be written to a file: give it to the storage by its own "
            "environment variables, or write a pipeline file with `storage_options`",
            key=key,
        )
    return Endpoint(connector=connector, config={"path": url}, name=_stem(urlsplit(url).path.rpartition("/")[2]))


def _path(text: str, role: str, key: str, folder: Path) -> Endpoint:
    path = folder / text
    is_glob = any(mark in text for mark in "*?[")
    connector = _by_content(path) or _by_suffix(text)
    if connector is None and role == "source":
        connector = _by_files(path, text, key)
    if connector is None:
        is_there = "" if path.exists() or is_glob or role == "destination" else "there is no such file, and "
        names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        near = nearest_match(text, names) if role == "source" and not path.exists() else None
        hint = f" For a folder of files say which, such as parquet:{_shown(text)}." if role == "destination" else ""
        if text.lower().endswith(_SHEETS):
            hint = " Of a workbook, save the sheet as CSV."
        if role == "source" and (archives := _archives(path, text)):
            hint = f" For archives say what is in them, such as csv:{_shown(archives)}."
        if text == "-":
            raise ConfigError("standard input is not read: write it to a file", key=key)
        message = f"{_shown(text)!r}: {is_there}its kind is unknown. Known are: {_FORMS[role]}.{hint}"
        raise ConfigError(message if near is None else message.removesuffix("."), key=key, nearest=near)
    if role == "source" and not is_glob and not path.exists():
        near = nearest_match(path.name, [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise ConfigError(f"{_shown(text)!r}: there is no such file or folder", key=key, nearest=near)
    name = path.parent.name if is_glob else path.resolve().name
    return Endpoint(connector=connector, config={"path": text}, name=_stem(name))


def _as_file(endpoint: Endpoint, place: str, role: str, key: str, folder: Path) -> Endpoint:
    """Return a destination whose place is named like a file as the folder around it, with one table.

    A folder that exists under that name stays one.
    """
    if role != "destination":
        return endpoint
    if CONNECTORS[endpoint.connector][1] is None:
        raise ConfigError(
            f"{_shown(place)!r}: documents of JSON are only read; x.jsonl is a file of one JSON object a line",
            key=key,
        )
    try:
        found = one_file(endpoint.connector, place, folder)
    except ConfigError as error:
        raise ConfigError(f"{_shown(error.message)}, such as {endpoint.connector}:folder", key=key) from None
    return endpoint if found is None else replace(endpoint, config=found.config, table=found.table)


def _by_content(path: Path) -> str | None:
    """Recognise a database file by its first bytes."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return None
    return "sqlite" if head.startswith(b"SQLite format 3\0") else "duckdb" if head[8:12] == b"DUCK" else None


def _by_suffix(text: str) -> str | None:
    name = text.rstrip("/").rpartition("/")[2].lower()
    for compression in _COMPRESSIONS:
        name = name.removesuffix(compression)
    return SUFFIXES.get(name[name.rfind(".") :]) if "." in name else None


def _by_files(path: Path, text: str, key: str) -> str | None:
    """Return the only kind of the files in a folder or a zip archive; archives in a folder do not count."""
    names: list[str] = []
    if path.is_dir():
        names = [each.name for each in path.rglob("*") if each.is_file()]
    elif text.lower().endswith(_ARCHIVE) and path.is_file():
        with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    found = {_by_suffix(name) for name in names if not name.lower().endswith(_ARCHIVE)} & set(_FILES)
    if len(found) > 1:
        found.discard("json")  # often beside the data, and in the folders of our own destinations
    if len(found) > 1:
        kinds = sorted(str(kind) for kind in found)
        choices = ", ".join(f"{kind}:{text}" for kind in kinds)
        raise ConfigError(f"{text!r} contains files of several kinds: say which, {choices}", key=key)
    return next(iter(found), None)


def _archives(path: Path, text: str) -> str:
    """Return the zip archives that a place names, or that are in a folder; empty: there are none."""
    if text.lower().endswith(_ARCHIVE):
        return text
    is_there = path.is_dir() and any(each.name.lower().endswith(_ARCHIVE) for each in path.iterdir())
    return f"{text.rstrip('/')}/*{_ARCHIVE}" if is_there else ""


def _holds_secret(url: str) -> bool:
    match = _CREDENTIALS.search(url)
    return bool((match and match[2]) or _SECRET_PARAMETER.search(url)) and not has_template(url)


def _variable_with(value: str, environ: Mapping[str, str]) -> str | None:
    """Return an environment variable with exactly this value, which the shell may have expanded."""
    names = sorted(name for name, found in environ.items() if found == value and name.isidentifier())
    return names[0] if names else None


def _free_name(name: str, value: str, environ: Mapping[str, str]) -> str:
    number, chosen = 1, name
    while environ.get(chosen, value) != value:
        number += 1
        chosen = f"{name}_{number}"
    return chosen


def _reference(variable: str) -> str:
    return f"{{{{ env_var('{variable}') }}}}"


def _name_of(url: str, role: str) -> str:
    """Return the name of a URL's database or file."""
    rest = _CREDENTIALS.sub(r"\1***\3", url).partition("://")[2].partition("?")[0]
    last = unquote(rest.rstrip("/").rpartition("/")[2])
    return _stem(last) if last else role


def _shown(text: str) -> str:
    """Return a place for a message; a possible password in a misspelt URL is masked."""
    return re.sub(r":[^:@]*@", ":***@", text)


def _has_dialect(scheme: str) -> bool:
    """Tell whether SQLAlchemy or an installed package has a dialect of this name."""
    from sqlalchemy.dialects import registry
    from sqlalchemy.exc import NoSuchModuleError

    try:
        registry.load(scheme.replace("+", "."))
    except (NoSuchModuleError, ImportError):
        return False
    return True


def _stem(name: str) -> str:
    for suffix in _COMPRESSIONS:
        name = name.removesuffix(suffix)
    stem, _, suffix = name.rpartition(".")
    plain = re.sub(r"[^A-Za-z0-9]+", "_", stem if stem and f".{suffix}".lower() in SUFFIXES else name).strip("_")
    return plain.lower() or "files"
