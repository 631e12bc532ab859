"""Steps of streams: each step that a plan can have is one that a run can perform."""

from __future__ import annotations

from importlib import import_module

from syncblocks.sync.plan.steps import ABSENT, PlannedStep
from syncblocks.sync.run.steps.chosen import STEPS
from syncblocks.sync.run.steps.protocol import Step


def test_a_run_has_a_step_for_each_key_of_the_plan() -> None:
    assert set(STEPS) == set(ABSENT)
    for file, kind in STEPS.values():
        import_module(f"syncblocks.sync.plan.features.{file}")
        step = getattr(import_module(f"syncblocks.sync.run.steps.{file}"), kind)
        assert issubclass(step, Step)
    assert {kind.name for kind in PlannedStep.__subclasses__()} == set(ABSENT)
