"""`syncblocks transformers test`: the result, the file's tests, and what single records would give."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import RunCLI

CLEAN = """
if 'test' not in globals():
    from mage_ai.data_preparation.decorators import test
@transformer
def clean(df, stream, region='none', **kwargs):
    df['place'] = stream + '/' + region + '/' + kwargs['block_uuid']
    return df
@test
def has_output(output, *args) -> None:
    assert len(output) == 2, 'not two'
"""

MEAN = """
@transformer
def mean(df):
    return df.assign(mean=df['amount'].mean())
"""


def test_a_transformer_its_tests_and_the_other_frames(tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "rows.csv").write_text("id,amount\n1,2\n2,4\n")
    (tmp_path / "clean.py").write_text(CLEAN)
    args = ["transformers", "test", "clean.py", "--variable", "region=eu", "--json"]
    done = run_cli([*args, "--data", "rows.csv", "--stream", "orders"], tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["records"] == [
        {"id": 1, "amount": 2, "place": "orders/eu/clean"},
        {"id": 2, "amount": 4, "place": "orders/eu/clean"},
    ]
    assert told["tests"] == {"has_output": None}
    assert told["difference"] is None

    failed = run_cli(args[:-1], tmp_path)  # three records of its own
    assert failed.returncode == 1
    assert "test has_output: AssertionError: not two (clean.py:10)" in failed.stdout


def test_an_async_test_is_run_to_its_end(tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "clean.py").write_text(
        MEAN + "@test\nasync def has_place(output): assert 'place' in output, 'no place'\n"
    )
    (tmp_path / "rows.csv").write_text("id,amount\n1,2\n2,4\n")
    done = run_cli(["transformers", "test", "clean.py", "--data", "rows.csv"], tmp_path)
    assert done.returncode == 1
    assert "test has_place: AssertionError: no place (clean.py:6)" in done.stdout


def test_a_mean_over_a_batch_is_another_than_over_each_record(tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "rows.csv").write_text("id,amount\n1,2\n2,4\n")
    (tmp_path / "mean.py").write_text(MEAN)
    args = ["transformers", "test", "mean.py", "--data", "rows.csv"]
    done = run_cli(args, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "`frames: record` gives another result: record 1 has 2.0 in column 'mean', not 3.0" in done.stdout
    assert "2 records in, 2 out" in run_cli([*args, "--frames", "record"], tmp_path).stdout


def test_errors_of_the_function_the_file_and_the_data(tmp_path: Path, run_cli: RunCLI) -> None:
    (tmp_path / "mean.py").write_text(MEAN)
    done = run_cli(["transformers", "test", "mean.py"], tmp_path)
    assert done.returncode == 1
    assert "KeyError: 'amount'" in done.stderr
    for returned, said in (
        ("None", "NoneType (is `return df` missing?)"),
        ("df['id']", "pandas.Series (is `.to_frame()` missing?)"),
        ("pyarrow.table({})", "pyarrow.Table (is `.to_pandas()` missing?)"),
        ("df.to_dict('records')", "list (is `pd.DataFrame(...)` missing?)"),
    ):
        (tmp_path / "odd.py").write_text(f"import pyarrow\n@transformer\ndef odd(df): return {returned}\n")
        done = run_cli(["transformers", "test", "odd.py"], tmp_path)
        assert (done.returncode, f"returned {said} instead" in done.stderr or done.stderr) == (1, True)
    assert run_cli(["transformers", "test", "gone.py"], tmp_path).returncode == 2
    assert run_cli(["transformers", "test", "mean.py", "--data", "rows.xls"], tmp_path).returncode == 2
