"""Names in paths: a name may hold a slash, which stays apart from those between the parts of a path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor


def path_of(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def decoded_path(scope: Mapping[str, Any]) -> str:
    """Return the path of a request, decoded but for slashes and percent signs within one of its parts.

    The convertor `name` decodes these.
    """
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return unquote(re.sub(rb"%(?=2[Ff]|25)", b"%25", raw).decode("ascii", "replace"))


class NameConvertor(Convertor[str]):
    """`{pipeline:name}` in a route: one part of the path."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """Return the name."""
        return unquote(value)

    def to_string(self, value: str) -> str:
        """Return the name as a part of a path."""
        return path_of(value)


class NumberConvertor(Convertor[int]):
    """`{run_id:number}` in a route: the number of a row, which has ten digits at most."""

    regex = "[0-9]{1,10}"

    def convert(self, value: str) -> int:
        """Return the number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Return the number as a part of a path."""
        return str(value)


register_url_convertor("name", NameConvertor())
register_url_convertor("number", NumberConvertor())
