"""A callback's output, and the message about a failed call, as every progress display shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncblocks.callbacks.protocols import Delivery, Outcome


def output_lines(delivery: Delivery, outcome: Outcome) -> list[str]:
    """Return the output lines of a callback, each with the callback block and its event."""
    return [f"[{delivery.callback_block} {delivery.label}] {line}" for line in outcome.output.splitlines()]


def outcome_text(delivery: Delivery, outcome: Outcome, mark: str) -> str:
    """Return the message about a failed call of a callback; empty if it succeeded."""
    if mark == "done":
        return ""
    # After its first line, an error has the traceback, which `callbacks history` shows.
    error = (outcome.error or "no reason given").partition("\n")[0]
    name = f"callback block {delivery.callback_block!r}, function {delivery.function!r} for {delivery.label}"
    what = f"{name} {outcome.kind}: {error}"
    if mark == "dead":
        return (
            f"{what}; attempt {delivery.attempt} of {delivery.attempts}, given up: "
            "`syncblocks callbacks retry` repeats it"
        )
    return f"{what}; attempt {delivery.attempt} of {delivery.attempts}, will be repeated"
