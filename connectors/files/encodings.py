"""Names of encodings: Python's, and the usual other ways to write them."""

from __future__ import annotations

import codecs
import re


def codec(encoding: str) -> str:
    """Return Python's name of an encoding of texts; `windows1252`, `ISO88591` and `win-1251` are understood, too.

    Raises:
        ValueError: there is no such encoding.
    """
    for name in (encoding, _known().get(_bare(encoding), "")):
        try:
            "".encode(name)
            return codecs.lookup(name).name
        except LookupError:
            continue
    import difflib

    near = difflib.get_close_matches(_bare(encoding), _known(), n=1, cutoff=0.75)
    hint = f"; did you mean {_known()[near[0]]}?" if near else ""
    raise ValueError(f"unknown encoding {encoding!r}{hint}")


def _bare(encoding: str) -> str:
    """Return a name without signs and blanks."""
    letters = re.sub("[^a-z0-9]", "", encoding.lower())
    return re.sub("^(?:windows|win)(?=[0-9])", "cp", letters)


def _known() -> dict[str, str]:
    from encodings.aliases import aliases  # a table that only a rare name needs

    odd = ("mbcs", "rot_13")  # none, or not of every system
    names = {_bare(name): found for name, found in aliases.items() if not found.endswith("_codec") and found not in odd}
    return {
        **{_bare(found): found for found in names.values()},
        **names,
        "utf8sig": "utf_8_sig",
        "utf8bom": "utf_8_sig",
    }


__all__ = ["codec"]
