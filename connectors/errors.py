"""Errors of connectors, sorted by what the caller does about them."""

from __future__ import annotations


class ConnectorError(Exception):
    """Root. The engine catches it and adds stream and block in one place.

    A message says what was wrong, where, and how to mend it; it never holds a credential.
    """

    #: Functions of which one was called by a trigger that raised it; `*`: a trigger raised it, and has no name here.
    raised_in: tuple[str, ...] = ()

    def __init__(self, message: str, *, connector: str = "", stream: str = "", key: str = "") -> None:
        super().__init__(message)
        self.connector = connector
        self.stream = stream
        #: Key of the connector's `config` that is at fault, if one is.
        self.key = key


class ConnectorConfigError(ConnectorError):
    """The settings are wrong (credentials, a missing file, an unknown key): fix them; a repetition cannot help."""


class RetriableError(ConnectorError):
    """A repetition may help: dropped connection, server restarting, deadlock, lock timeout."""


class FatalConnectorError(ConnectorError):
    """The stream cannot go on: a value that does not fit, a missing permission, a constraint that refuses."""


class StatementRefused(FatalConnectorError):
    """The database refuses the statement itself (a missing permission, a full disk): no record is at fault."""


class TakenOver(ConnectorError):
    """Another run has written its token into the ledger row; nothing of this commit was kept."""


class Interrupted(ConnectorError):
    """A call under way was ended by `interrupt`; the transaction was rolled back."""
