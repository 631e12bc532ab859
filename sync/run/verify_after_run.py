"""`verify: true`: compare source and destination at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.struct_helpers import replace

from ..errors import SyncError
from ..session.session import PipelineSession, make_plan
from ..store import Store
from .block_runs import SUCCESS
from .executors.protocol import Member
from .progress import Progress
from .results import StreamResult


def verified(
    results: tuple[StreamResult, ...],
    runs: Sequence[Member],
    session: PipelineSession,
    store: Store,
    progress: Progress,
) -> tuple[StreamResult, ...]:
    """Compare the successful streams with `verify: true`; return the results with their verdicts."""
    names = [run.name for run in runs if run.status == SUCCESS and run.planned.policy.verify]
    if not names:
        return results
    from ..verify.verification import DIFFERS, FAILED, verify_streams

    verdicts: dict[str, str] = {}
    try:
        for found in verify_streams(session, make_plan(session, store, only=names, is_of_run=False)):
            verdicts[found.stream] = found.verdict
            notes = "".join(f"; {session.redactor.redact(note)}" for note in found.notes)
            hint = ", `syncblocks verify` names what" if found.verdict == DIFFERS else ""
            level = "error" if found.verdict in (DIFFERS, FAILED) else "info"
            progress.message(f"{found.stream}: verified: {found.verdict}{hint}{notes}", level=level)
    except (SyncError, ConnectorError) as error:
        progress.message(f"not verified: {session.redactor.redact(str(error))}", level="error")
        verdicts = {name: verdicts.get(name, FAILED) for name in names}
    return tuple(replace(result, verdict=verdicts.get(result.stream)) for result in results)
