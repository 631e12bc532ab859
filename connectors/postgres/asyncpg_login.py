"""Stops asyncpg from sending the password in clear text; it has no setting for this, unlike libpq's `require_auth`."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from ..sql.clear_text import REFUSED

#: Type of the server's login messages; codes for "done" and for "send the password in clear text".
_AUTHENTICATION, _DONE, _CLEAR_TEXT = b"R", 0, 3
#: Type and length of a message.
_HEAD_BYTES = 5


class Loop(asyncio.SelectorEventLoop):
    """The event loop of our connections, by which the driver's protocol recognises them."""

    refuses_clear_text = True


@cache
def guard() -> None:
    """Replace the driver's protocol by one that checks the login on our loops; other loops are not affected."""
    from asyncpg import protocol

    class Guarded(protocol.Protocol):  # type: ignore[misc]  # the driver has no types
        def __init__(self, address: Any, connected: Any, parameters: Any, record_class: Any, loop: Any) -> None:
            super().__init__(address, connected, parameters, record_class, loop)
            self._unread = bytearray()
            self._connected = connected
            self._transport: Any = None
            if not (isinstance(loop, Loop) and loop.refuses_clear_text):
                self._release()

        def connection_made(self, transport: Any) -> None:
            self._transport = transport
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            """Pass on whole messages until the login is done."""
            self._unread += data
            whole = 0
            while len(self._unread) >= whole + _HEAD_BYTES:
                end = whole + 1 + int.from_bytes(self._unread[whole + 1 : whole + _HEAD_BYTES])
                if len(self._unread) < end:
                    break
                if self._unread[whole : whole + 1] == _AUTHENTICATION:
                    code = int.from_bytes(self._unread[whole + _HEAD_BYTES : whole + _HEAD_BYTES + 4])
                    if code == _CLEAR_TEXT:
                        self._refuse()
                        return
                    if code == _DONE:
                        self._release()
                        end = len(self._unread)
                whole = end
            data, self._unread = bytes(self._unread[:whole]), self._unread[whole:]
            if data:
                super().data_received(data)

        def _release(self) -> None:
            # Looked up for each packet: after the login, no extra step remains.
            self.data_received = super().data_received  # type: ignore[method-assign]

        def _refuse(self) -> None:
            if not self._connected.done():
                self._connected.set_exception(PermissionError(REFUSED.format(settings="sslmode=verify-full")))
            self._transport.abort()

    protocol.Protocol = Guarded


__all__ = ["Loop", "guard"]
