"""The error of a transformer's function as text: type, message, place and source line, and the present columns."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from syncblocks.callbacks.errors import first_line

from ..errors import SyncError, nearest_match

#: Folder of the code that calls the function.
_ENGINE = str(Path(__file__).parents[1])

#: Maximum of columns listed in a message.
MOST_COLUMNS = 30


class FunctionFailed(SyncError):
    """The user's function raised an error."""

    code = "transformer"

    def __init__(self, block: str, error: BaseException, columns: Sequence[str]) -> None:
        """Describe the error of a function that got a frame with these columns."""
        self.original = error
        super().__init__(f"block {block!r}: {first_line(error)}{_place(error)}{_columns(error, columns)}")


def _place(error: BaseException) -> str:
    """Return file, line and source line of the last call in the function's own file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_ENGINE)]
    last = next((frame for frame in reversed(frames) if frame.filename == frames[0].filename), None)
    if last is None:
        return ""
    return f", at {last.filename}:{last.lineno}" + (f": {last.line}" if last.line else "")


def _columns(error: BaseException, columns: Sequence[str]) -> str:
    """List the columns if the function asked the frame for one that it does not have."""
    name: Any = None
    if isinstance(error, KeyError) and _is_of_pandas(error):
        name = error.args[0] if error.args else None
    elif isinstance(error, AttributeError) and type(error.obj).__name__ == "DataFrame":
        name = error.name
    else:
        return ""
    shown = ", ".join(columns[:MOST_COLUMNS]) + (", ..." if len(columns) > MOST_COLUMNS else "")
    near = nearest_match(name, columns) if isinstance(name, str) else None
    return (f"; did you mean {near!r}? The" if near else "; the") + f" columns are: {shown}"


def _is_of_pandas(error: BaseException) -> bool:
    return any("pandas" in frame.filename for frame in traceback.extract_tb(error.__traceback__))
