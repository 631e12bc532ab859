"""What the plan warns of in the user's functions: flags that they may miss, and variables that hide nothing."""

from __future__ import annotations

from pathlib import Path

from syncblocks.sync.config import load_pipeline
from syncblocks.sync.delivery.subscriptions import load_user_code
from tests.conftest import RunCLI

PIPELINE = """\
pipeline: crm
variables: {data: x}
source: {block: load, connector: csv, config: {path: data}}
destination: {connector: duckdb, config: {path: w.duckdb}}
streams: [{stream: "*"}]
"""


def warnings(folder: Path, text: str) -> list[str]:
    (folder / "alerts.py").write_text(text)
    (folder / "crm.yaml").write_text(f"{PIPELINE}callbacks: [{{file: alerts.py}}]\n")
    return list(load_user_code(load_pipeline(folder / "crm.yaml")).warnings)


def test_the_flag_warning_names_the_function_that_uses_the_flag(tmp_path: Path) -> None:
    (warning,) = warnings(
        tmp_path,
        "@callback\ndef first(**kwargs): ...\n"
        "@callback\ndef second(**kwargs): return kwargs['is_last_block_run']\n"
        "@callback('failure')\n@callback('cancelled')\n@callback\n"
        "def third(**kwargs): return kwargs['is_last_block_run']\n",
    )
    assert "function 'second' may never see is_last_block_run=True" in warning


def test_the_flag_warning_names_each_function_that_passes_its_arguments_on(tmp_path: Path) -> None:
    found = warnings(
        tmp_path,
        "def finish(kwargs): return kwargs['is_last_block_run']\n"
        "@callback\ndef first(**kwargs): finish(kwargs)\n@callback\ndef second(stream): ...\n",
    )
    assert ["function 'first'" in each for each in found] == [True]


def test_a_variable_with_the_name_of_the_datas_parameter_is_a_warning(tmp_path: Path, run_cli: RunCLI) -> None:
    (warning,) = warnings(tmp_path, "@callback\ndef tell(data, **kwargs): return len(data)\n")
    assert "not the variable 'data'" in warning
    done = run_cli(["callbacks", "test", "alerts.py", "--pipeline", "crm.yaml", "--stream", "s"], tmp_path)
    assert "returned 3" in done.stdout
    assert "not the variable 'data'" in done.stderr


def test_a_variable_with_the_name_of_a_transformers_data_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "clean.py").write_text("@transformer\ndef clean(data, **kwargs): return data\n")
    (tmp_path / "crm.yaml").write_text(f"{PIPELINE}transformers: [{{block: clean, file: clean.py}}]\n")
    (warning,) = load_user_code(load_pipeline(tmp_path / "crm.yaml")).warnings
    assert "transformer 'clean'" in warning
    assert "not the variable 'data'" in warning
