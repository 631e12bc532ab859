"""Errors of connectors, sorted by what the caller does about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class ConnectorError(Exception):
    """Root of all errors of connectors. The engine catches it and adds stream and block in one place.

    A message says what was wrong, where, and what would be right; it never holds a credential.
    """

    #: Functions of triggers, one of which raised the error; `*`: a trigger of unknown name did.
    raised_in: tuple[str, ...] = ()
    #: A trigger of the table has caused it, or may have.
    is_of_trigger: bool = False
    #: Whether the engine knows that the source has raised it.
    is_from_source: bool = False
    #: The message, or as much of it as holds no value of a record: masks show that much. Empty: masks hide it.
    without_values: str = ""
    #: The key of the stream's entry in the pipeline file that mends it; empty: none does.
    stream_key: str = ""

    def __init__(
        self,
        message: str,
        *,
        connector: str = "",
        stream: str = "",
        key: str = "",
        without_values: str = "",
        has_no_values: bool = False,
    ) -> None:
        """Make an error.

        Args:
            message: what was wrong, where, and what would be right.
            connector: the connector's name.
            stream: the stream's name.
            key: the key of the connector's `config` that is wrong.
            without_values: as much of the message as holds no value of a record.
            has_no_values: the whole message holds none.
        """
        super().__init__(message)
        self.without_values = message if has_no_values else without_values
        self.connector = connector
        self.stream = stream
        #: The key of the connector's `config` that is wrong; empty: none is.
        self.key = key

    def extended(self, *, before: str = "", after: str = "") -> Self:
        """Put words before and after the message; return the error itself, for `raise error.extended(...)`."""
        said = str(self.args[0])
        self.args = (f"{before}{said.rstrip('.') if after else said}{after}",)
        return self

    def renamed(self, name: str, shown: str) -> Self:
        """Show another name in place of one that people do not know; return the error itself."""
        self.args = (str(self.args[0]).replace(name, shown),)
        return self


class ConnectorConfigError(ConnectorError):
    """The settings are wrong (credentials, a missing file, an unknown key): another try cannot help."""

    #: Further mistakes that were found in the same go.
    others: tuple[ConnectorConfigError, ...] = ()

    @property
    def message(self) -> str:
        """Return what is said of this mistake alone."""
        return str(self.args[0])

    def __str__(self) -> str:
        """Return the message; of several mistakes a line each."""
        found = (self, *self.others)
        return (
            "\n  ".join((f"{len(found)} mistakes:", *(each.message for each in found))) if self.others else self.message
        )


class RetriableError(ConnectorError):
    """Another try may help: dropped connection, restarting server, deadlock, lock timeout."""


class TableLost(RetriableError):
    """The table with what came before the bookmark was dropped, or made anew; the transaction was rolled back."""


class FatalConnectorError(ConnectorError):
    """The stream cannot go on: a value that does not fit, a missing permission, a violated constraint."""


class UniqueViolated(FatalConnectorError):
    """A record has the same values as another one in columns that the table keeps unique."""

    #: The table that keeps them so, without its schema, where the database names it.
    table: str = ""


class StatementRefused(FatalConnectorError):
    """The database refuses the statement itself (a missing permission, a full disk): no record is at fault."""


class NoSuchTable(StatementRefused):
    """A table that the statement names is not there."""


class TakenOver(ConnectorError):
    """Another run has written its token into the ledger row; this commit was rolled back."""


class Interrupted(ConnectorError):
    """`interrupt` has ended the call; its transaction was rolled back."""


def taken_over(stream: str, owner: str = "") -> TakenOver:
    """Make the error for a stream whose ledger row has another token.

    Args:
        stream: name of the stream.
        owner: owner of that token. Empty if the row was deleted or cannot be read.
    """
    by = owner or "another run, or its ledger row was deleted"
    return TakenOver(f"stream {stream!r} was taken over by {by}", stream=stream)


def null_in_key(
    column: str, *, stream: str = "", stream_key: str = "key_properties", keeps_rejected: bool = True
) -> FatalConnectorError:
    """Make the error for a record without a key: what can be done about it is the same in all systems."""
    aside = "set them aside by `on_rejected: keep`, " if keeps_rejected else ""
    error = FatalConnectorError(
        f"column {column!r} of the key is NULL in a record, so the record could not be found again. Set another "
        f"`{stream_key}`, filter such records by `where: {{{column}: {{is_null: false}}}}`, {aside}or write "
        "without a key by `write_disposition: append`",
        stream=stream,
        has_no_values=True,
    )
    error.stream_key = stream_key
    return error
