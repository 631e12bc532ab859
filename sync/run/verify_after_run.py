"""`verify: true`: compare source and destination at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.log_based import LogMoment
from syncblocks.connectors.struct_helpers import replace

from ..errors import SyncError
from ..session.session import PipelineSession, make_plan
from ..store import Store
from .executors.protocol import RunningStream
from .progress import Progress
from .results import StreamResult
from .stream_blocks import SUCCESS


def verified(
    results: tuple[StreamResult, ...],
    runs: Sequence[RunningStream],
    session: PipelineSession,
    store: Store,
    progress: Progress,
    *,
    moment: LogMoment | None = None,
    unheld: str = "",
) -> tuple[StreamResult, ...]:
    """Compare the successful streams with `verify: true`; return the results with their verdicts.

    Args:
        results: of all streams.
        runs: the streams that were run.
        session: the opened pipeline.
        store: the run store.
        progress: is told what was found.
        moment: up to which merged LOG_BASED streams were read.
        unheld: why there is no such moment, though there should be.
    """
    names = [run.name for run in runs if run.status == SUCCESS and run.planned.policy.verify]
    if not names:
        return results
    from ..verify.verification import DIFFERS, FAILED, verify_streams

    verdicts: dict[str, str] = {}
    try:
        plan = make_plan(session, store, only=names, is_of_run=False)
        for found in verify_streams(session, plan, moment=moment, unheld=unheld):
            verdicts[found.stream] = found.verdict
            notes = "".join(f"; {session.redactor.redact(note)}" for note in found.notes)
            hint = ", `syncblocks verify` names what" if found.verdict == DIFFERS else ""
            level = "error" if found.verdict in (DIFFERS, FAILED) else "info"
            progress.message(f"{found.stream}: verified: {found.verdict}{hint}{notes}", level=level)
    except (SyncError, ConnectorError) as error:
        progress.message(f"not verified: {session.redactor.redact(str(error))}", level="error")
        verdicts = {name: verdicts.get(name, FAILED) for name in names}
    return tuple(replace(result, verdict=verdicts.get(result.stream)) for result in results)
