"""What each package offers: `__all__` is what it exports, and nothing else is public by accident."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

PACKAGES = [
    "syncblocks",
    "syncblocks.callbacks",
    "syncblocks.callbacks.testing",
    "syncblocks.connectors",
    "syncblocks.connectors.testing",
    "syncblocks.sync",
    "syncblocks.sync.config",
    "syncblocks.sync.store",
]

MARKS = {
    "BlockRun",
    "ParentError",
    "PipelineRun",
    "callback",
    "on_cancelled",
    "on_failure",
    "on_success",
    "transformer",
}

#: What users write into their files and programs. A name goes from here with a note in the changelog only.
PUBLIC = {
    "syncblocks": {
        *MARKS,
        "HeldRun",
        "Pipeline",
        "PipelineFailed",
        "Progress",
        "RunResult",
        "StreamResult",
        "SyncError",
        "TryLater",
        "cancel",
        "count",
        "discover",
        "finish_run",
        "list_streams",
        "load_pipeline",
        "open_run",
        "preview",
        "recover",
        "run_pipeline",
        "state",
        "sync_stream",
        "verify",
    },
    "syncblocks.callbacks": MARKS,
    "syncblocks.callbacks.testing": {"Called", "Trial", "UnknownName", "call", "make_event", "try_file"},
    "syncblocks.connectors.testing": {
        "VALUES",
        "DestinationContract",
        "Feature",
        "Quirks",
        "SourceContract",
        "Values",
        "canonical",
        "same_records",
    },
}


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_in_all_is_there(name: str) -> None:
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        assert getattr(module, exported) is not None


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_are_these(name: str) -> None:
    assert set(importlib.import_module(name).__all__) == PUBLIC[name]


@pytest.mark.parametrize(
    "name", ["syncblocks.callbacks", "syncblocks.callbacks.testing", "syncblocks.connectors.testing"]
)
def test_all_is_what_a_package_exports(name: str) -> None:
    module = importlib.import_module(name)
    found = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", name).partition(".")[0] == name.partition(".")[0]
    }
    own = {key for key in found if getattr(getattr(module, key), "__module__", None) == name}
    assert own <= set(module.__all__), "defined here, public by its name, and not exported"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import syncblocks

    with pytest.raises(AttributeError, match="no attribute 'run_pipelin'"):
        _ = syncblocks.run_pipelin


@pytest.mark.parametrize("name", ["sync", "connectors", "callbacks", "sync.errors"])
def test_a_package_has_one_name(name: str) -> None:
    with pytest.raises(ImportError, match=f"import syncblocks.{name.partition('.')[0]}, not"):
        importlib.import_module(name)


def test_the_marks_cost_no_heavy_import() -> None:
    heavy = "('pandas', 'pyarrow', 'syncblocks.sync')"
    code = "import sys, syncblocks.callbacks.testing; from syncblocks import callback; "
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_that_are_not_imported_yet_are_offered_for_completion() -> None:
    code = "import sys, syncblocks as s; print(set(s.__all__) <= set(dir(s)), 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True False\n", done.stderr
