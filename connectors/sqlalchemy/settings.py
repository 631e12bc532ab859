"""Settings of the sqlalchemy connector, and the engine made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt, SecretStr

from ..errors import ConnectorConfigError
from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..network import (
    CONNECT_TIMEOUT,
    CONNECT_TIMEOUT_S,
    NETWORK_TIMEOUT,
    NETWORK_TIMEOUT_S,
    libpq_parameters,
    limit_socket,
)
from ..secret_texts import masked
from ..settings import Settings, refuse_ambiguous, resolve_path
from ..sql.address import LOCAL
from ..sql.clear_text import LIBPQ, LIBPQ_SINCE, pymysql_connection, pymysql_plugins
from ..stream import Place

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

#: Package that a dialect comes with: what to install where it is missing. Dialects without a line here are told by
#: their name.
PACKAGES = {
    "access": "sqlalchemy-access",
    "bigquery": "sqlalchemy-bigquery",
    "clickhouse": "clickhouse-sqlalchemy",
    "clickhousedb": "clickhouse-connect",
    "cockroachdb": "sqlalchemy-cockroachdb",
    "crate": "sqlalchemy-cratedb",
    "databricks": "databricks-sqlalchemy",
    "db2": "ibm-db-sa",
    "denodo": "denodo-sqlalchemy",
    "druid": "pydruid",
    "duckdb": "duckdb-sqlalchemy",
    "exa": "sqlalchemy-exasol",
    "firebird": "sqlalchemy-firebird",
    "hana": "sqlalchemy-hana",
    "ibm_db_sa": "ibm-db-sa",
    "iris": "sqlalchemy-iris",
    "monetdb": "sqlalchemy-monetdb",
    "mssql": "pyodbc",
    "oracle": "oracledb",
    "redshift": "sqlalchemy-redshift",
    "snowflake": "snowflake-sqlalchemy",
    "teradatasql": "teradatasqlalchemy",
    "trino": "trino[sqlalchemy]",
    "vertica": "vertica-sqlalchemy-dialect",
    "ydb": "ydb-sqlalchemy",
}

#: Import name of a driver -> package, where they differ.
_DRIVERS = {
    "MySQLdb": "mysqlclient",
    "cx_Oracle": "cx-Oracle",
    "firebird": "firebird-driver",
    "ibm_db": "ibm-db",
    "psycopg2": "psycopg2-binary",
    "hdbcli": "hdbcli",
}


#: Driver of MySQL -> what keeps it from sending files of this machine that a server asks for. Some do so by default,
#: and we load by other means.
_NO_LOCAL_FILES: Mapping[str, Mapping[str, Any]] = {
    "mariadbconnector": {"local_infile": False},
    "mysqlconnector": {"allow_local_infile": False},
    "mysqldb": {"local_infile": 0},
    "pymysql": {"local_infile": False},
}

#: Dialects whose databases are files of this machine.
_IN_FILES = {"sqlite", "duckdb"}
#: Drivers whose connections take libpq's parameters.
_LIBPQ = {"psycopg", "psycopg2"}
#: Values of libpq's `sslmode`.
_VERIFYING = ("verify-ca", "verify-full")
#: Drivers whose connections hold a socket of Python's as `_sock`.
_SOCKETS = {"pymysql"}
_KNOWN = "; with psycopg, psycopg2 and PyMySQL, unless `url` or `connect_args` set it"


class SQLAlchemySettings(Settings):
    """Config of a source or destination by its SQLAlchemy dialect."""

    url: SecretStr = Field(description="SQLAlchemy URL: oracle+oracledb://user:password@host:1521/?service_name=x")
    schema_: str | None = Field(
        None,
        alias="schema",
        description="Source: the schema to read. Destination: schema of tables without a schema in their name",
    )
    connect_args: Mapping[str, Any] = Field(
        default_factory=dict, description="Further arguments for the driver's connect function"
    )
    connect_timeout_s: PositiveInt = Field(CONNECT_TIMEOUT_S, description=f"{CONNECT_TIMEOUT}{_KNOWN}")
    network_timeout_s: PositiveInt = Field(NETWORK_TIMEOUT_S, description=f"{NETWORK_TIMEOUT}{_KNOWN}")
    checkpoint_records: PositiveInt = Field(
        CHECKPOINT_RECORDS, description="Source: records between two checkpoints of INCREMENTAL"
    )
    checkpoint_s: float = Field(
        CHECKPOINT_S, gt=0, description="Source: seconds after which a checkpoint comes earlier"
    )

    def placed(self, folder: Path | None) -> SQLAlchemySettings:
        """Return the same with the file of a database that is one, if it is relative, counted from a folder."""
        url = _parse(self.url.get_secret_value())
        if folder is None or not _is_in_file(url):
            return self
        url = url.set(database=str(resolve_path(url.database or "", folder)))
        return self.model_copy(update={"url": SecretStr(url.render_as_string(hide_password=False))})

    def missing_file(self) -> str:
        """Return the file of a database that is one, if there is none; else an empty text."""
        url = _parse(self.url.get_secret_value())
        return url.database or "" if _is_in_file(url) and not Path(url.database or "").exists() else ""

    def engine(self) -> Engine:
        """Return an engine; imports the dialect and its driver, connects to nothing.

        Raises:
            ConnectorConfigError: the URL is none, or a package is missing (the message names it).
        """
        import sqlalchemy as sa
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        url = _parse(self.url.get_secret_value())
        name = url.drivername.partition("+")[0]
        try:
            # Every session holds its own connection as long as it lives; `Sessions` is the pool.
            engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=self._arguments(url))
        except NoSuchModuleError as error:
            package = PACKAGES.get(name)
            hint = f"pip install {package}" if package else "install the package that contains it"
            raise _wrong(f"no dialect {url.drivername!r} is installed: {hint}") from error
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            raise _wrong(f"{url.drivername} needs {module}: pip install {_DRIVERS.get(module, module)}") from error
        except (ArgumentError, TypeError, ValueError, ImportError) as error:
            raise _wrong(scrub(f"{type(error).__name__}: {error}".partition("\n")[0], url)) from None
        if engine.dialect.driver in _SOCKETS:
            limits = libpq_parameters(self.connect_timeout_s, self.network_timeout_s)
            sa.event.listen(engine, "connect", lambda connection, _record: limit_socket(connection._sock, limits))
            if not self._is_verified_mysql(url) and (url.host or "").lower() not in LOCAL:
                make = pymysql_connection()
                sa.event.listen(engine, "do_connect", lambda _dialect, _record, given, named: make(*given, **named))
        return engine

    def _arguments(self, url: URL) -> dict[str, Any]:
        """Return what the driver's connect takes beside the URL, with limits where it is known how to set them."""
        driver = url.get_dialect().driver
        limits: dict[str, Any] = {}
        if driver in _LIBPQ:
            limits = dict(libpq_parameters(self.connect_timeout_s, self.network_timeout_s))
            if url.query.get("sslmode") not in _VERIFYING and not (url.host or "").startswith("/"):
                limits |= LIBPQ if _libpq_version(driver) >= LIBPQ_SINCE else {}
        elif driver in _SOCKETS:
            limits = {"connect_timeout": self.connect_timeout_s}
            if url.password:  # of text the driver would make Latin-1
                limits["password"] = url.password.encode("utf-8", "surrogateescape")
            if not self._is_verified_mysql(url):
                limits["auth_plugin_map"] = pymysql_plugins()
        return {name: value for name, value in limits.items() if name not in url.query} | {
            **self.connect_args,
            **_NO_LOCAL_FILES.get(driver, {}),
        }

    def _is_verified_mysql(self, url: URL) -> bool:
        """Tell whether PyMySQL verifies the server, or connects by a socket in the file system."""
        said = {**url.query, **self.connect_args}
        verifying = ("ssl_verify_cert", "ssl_verify_identity", "unix_socket")
        return any(said.get(name) for name in verifying) or "ca" in (said.get("ssl") or ())

    def identity(self) -> str:
        """Return the place without credentials; as the own connector of a system spells it, where there is one."""
        host = (_parse(self.url.get_secret_value()).host or "").lower()
        return self._address("localhost" if host in ("127.0.0.1", "::1") else host)

    def shown(self) -> str:
        """Return the same with the host as the URL writes it."""
        return self._address(_parse(self.url.get_secret_value()).host or "")

    def _address(self, host: str) -> str:
        url = _parse(self.url.get_secret_value())
        name = url.drivername.partition("+")[0]
        name = {"postgresql": "postgres", "mariadb": "mysql"}.get(name, name)
        port = f":{url.port}" if url.port and url.port != {"postgres": 5432, "mysql": 3306}.get(name) else ""
        # Some keep the name of the database among the parameters; those that say how to log in do not belong here.
        place = [f"{key}={url.query[key]}" for key in sorted(url.query) if key in _PLACES]
        return f"{name}://{host}{port}/{url.database or ''}{'?' + '&'.join(place) if place else ''}"

    def reach(self) -> Place:
        """Tell from where the URL leads to the same database; one without a host is a file, or on this machine."""
        host = (_parse(self.url.get_secret_value()).host or "localhost").lower()
        return "host" if host in ("localhost", "127.0.0.1", "::1") else "anywhere"


#: Parameters of a URL that say where, for some dialects.
_PLACES = {"database", "dsn", "odbc_connect_database", "service_name", "sid", "warehouse"}


def _libpq_version(driver: str) -> int:
    if driver == "psycopg":
        from psycopg import pq

        return int(pq.version())
    import psycopg2  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return int(psycopg2.__libpq_version__)


def _is_in_file(url: URL) -> bool:
    """Tell whether the database is a file that the URL names by a path."""
    file = url.database or ""
    return url.drivername.partition("+")[0] in _IN_FILES and bool(file) and not file.startswith((":", "file:", "md:"))


def _parse(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        refuse_ambiguous(url, other="the driver's own setting in `connect_args`")
    except ValueError as error:
        raise _wrong(str(error)) from None
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise _wrong("url is not an SQLAlchemy URL: dialect+driver://user:password@host:port/database") from None


def scrub(text: str, url: URL) -> str:
    """Take the password, and whatever else of the URL's parameters may be one, out of a text."""
    secrets = [
        url.password,
        *(str(value) for key, value in url.query.items() if re.search("pass|pwd|token|key|secret", key, re.I)),
    ]
    return masked(text, (str(secret) for secret in secrets if secret))


def _wrong(message: str) -> ConnectorConfigError:
    return ConnectorConfigError(f"config of connector 'sqlalchemy': {message}", connector="sqlalchemy", key="url")


__all__ = ["PACKAGES", "SQLAlchemySettings", "scrub"]
