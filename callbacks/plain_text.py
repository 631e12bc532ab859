"""Texts of user code and drivers, made fit for a history."""

from __future__ import annotations

import re

#: Codes that colour a terminal, move its cursor or set its title (ECMA-48), also codes that were cut.
_TERMINAL_CODE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?"  # a control sequence
    r"|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # a string, such as a title or a link
    r"|[ -/]*[0-~]?)"  # any other
)


def plain_text(text: str) -> str:
    """Remove terminal codes; escape NUL and lone surrogates, which databases do not store.

    Call it before secrets are masked: a secret may contain such codes.
    """
    return _TERMINAL_CODE.sub("", text).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
