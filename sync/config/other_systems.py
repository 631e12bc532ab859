"""Systems without a connector of their own: what to write in the pipeline file instead."""

from __future__ import annotations

from syncblocks.connectors.registry import CONNECTORS

#: Name that a user may write -> SQLAlchemy's name.
_DIALECTS = {
    "cockroach": "cockroachdb",
    "exasol": "exa",
    "sqlserver": "mssql",
    "sql_server": "mssql",
    "teradata": "teradatasql",
}

#: Dialect -> a URL of it; every output masks passwords like this.
_URLS = {
    "bigquery": "bigquery://PROJECT/DATASET",
    "databricks": "databricks://token:***@HOST?http_path=PATH&catalog=CATALOG&schema=SCHEMA",
    "mssql": "mssql+pyodbc://USER:***@HOST/DATABASE?driver=ODBC+Driver+18+for+SQL+Server",
    "oracle": "oracle+oracledb://USER:***@HOST:1521/?service_name=NAME",
    "snowflake": "snowflake://USER:***@ACCOUNT/DATABASE/SCHEMA?warehouse=NAME",
    "trino": "trino://USER@HOST:8080/CATALOG/SCHEMA",
}

#: Dialects of systems that do not roll back, which the sqlalchemy connector refuses as destinations.
_ONLY_READ = ("bigquery", "clickhouse", "clickhousedb", "databricks", "druid", "trino")


#: Places of files, for which other tools have one connector.
_FILES = frozenset(["filesystem", "file", "files", "local", "s3", "gcs", "gs", "azure", "azure_blob_storage", "sftp"])

_FILES_WAY = {
    "source": "write that of the files' format, such as `connector: csv`, with `path: data` or `path: s3://BUCKET/FOLDER`",
    "destination": "write that of the format, such as `connector: parquet`, with `path: out` or `path: s3://BUCKET/FOLDER`",
}

#: Services for which other tools have a connector.
_SERVICES = frozenset(
    [
        *("airtable", "amplitude", "api", "asana", "facebook_ads", "freshdesk", "github", "gitlab", "google_ads"),
        *("google_analytics", "google_sheets", "hubspot", "intercom", "jira", "kafka", "mixpanel", "mongodb", "notion"),
        *("rest_api", "salesforce", "sendgrid", "shopify", "slack", "stripe", "twitter_ads", "zendesk", "zoom"),
    ]
)


def package_of(dialect: str) -> str:
    """Return the package that a dialect of SQLAlchemy comes with; empty: it is not known."""
    from syncblocks.connectors.sqlalchemy.settings import PACKAGES

    return PACKAGES.get(dialect, "")


def way_to(system: str, role: str) -> str:
    """Say what reads from, or writes to, a system; empty: nothing is known of a system of this name.

    Args:
        system: the name of a connector that there is not.
        role: `source` or `destination`.
    """
    name = system.lower()
    if name in CONNECTORS:
        return ""
    if name.startswith(("tap-", "target-")):
        return f"write `connector: singer` with `config: {{{'pip' if role == 'source' else 'target'}: {name}}}`"
    if name in _FILES:
        return _FILES_WAY[role]
    if name in ("excel", "xlsx", "xls"):
        return "save the sheet as CSV, and write `connector: csv`"
    if name in ("sql_database", "sql", "database", "db"):
        return "write that of the database, such as `connector: postgres`, else `connector: sqlalchemy` with a URL"
    if name in _SERVICES:
        of_it = "NAME" if name in ("api", "rest_api") else name.replace("_", "-")
        plugin = f"pip: tap-{of_it}" if role == "source" else f"target: target-{of_it}"
        kind = "tap" if role == "source" else "target"
        way = f"write `connector: singer` with `config: {{{plugin}}}`, if there is such a Singer {kind}"
        return way if role == "destination" else f"{way}, or `connector: airbyte` with its manifest or package"
    dialect = _DIALECTS.get(name, name)
    package = package_of(dialect)
    if not package:
        return ""
    if role == "destination" and dialect in _ONLY_READ:
        return f"write `connector: singer` with `config: {{target: target-{name}}}`, if there is such a Singer target"
    url = _URLS.get(dialect, f"{dialect}://USER:***@HOST/DATABASE")
    return f'write `connector: sqlalchemy` with `config: {{url: "{url}"}}`, and `pip install {package}`'
