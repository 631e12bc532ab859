from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from syncblocks.callbacks.errors import CallbackLoadError
from syncblocks.callbacks.loader import load_file
from syncblocks.callbacks.testing import call, make_event

DATA = object()


def received(tmp_path: Path, text: str, *, status: str = "success", **overrides: Any) -> Any:
    """Call the one function of a file and return what it returned."""
    file = tmp_path / "alerts.py"
    file.write_text(dedent(text))
    (called,) = call(file, status, make_event(status, **overrides), DATA)
    return called.value


@pytest.mark.parametrize(
    "signature",
    ["df", "df, **kwargs", "df=None, **kwargs", "df, /, **kwargs", "df, extra=1, **kwargs", "df: 'DataFrame', *rest"],
)
def test_the_first_positional_parameter_receives_the_data(tmp_path: Path, signature: str) -> None:
    assert received(tmp_path, f"@callback\ndef tell({signature}): return df\n") is DATA


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated where they stand")
def test_an_annotation_may_name_what_type_checkers_alone_know(tmp_path: Path) -> None:
    text = """
    from typing import TYPE_CHECKING
    if TYPE_CHECKING:
        import nobody
    @callback
    def tell(df: nobody.Frame, *, stream: Unknown) -> nobody.Frame: return df
    """
    assert received(tmp_path, text) is DATA


def test_star_args_counts_as_a_positional_parameter(tmp_path: Path) -> None:
    args, kwargs = received(tmp_path, "@callback\ndef tell(*args, **kwargs): return args, kwargs\n")
    assert args == (DATA,)
    assert kwargs["stream"] == "users"


def test_a_positional_parameter_named_like_a_kwarg_receives_that_kwarg(tmp_path: Path) -> None:
    text = "@callback\ndef tell(stream, index, *, destination_table): return stream, index, destination_table\n"
    assert received(tmp_path, text) == ("users", 0, "users")


def test_the_data_goes_to_the_first_parameter_that_is_not_a_kwarg(tmp_path: Path) -> None:
    text = "@callback\ndef tell(stream, df, index, /, **kwargs): return stream, df, index\n"
    assert received(tmp_path, text) == ("users", DATA, 0)


def test_star_args_after_kwargs_by_position_receives_the_data(tmp_path: Path) -> None:
    assert received(tmp_path, "@callback\ndef tell(stream, *args): return stream, args\n") == ("users", (DATA,))


def test_star_args_stay_empty_if_another_parameter_has_the_data(tmp_path: Path) -> None:
    assert received(tmp_path, "@callback\ndef tell(df, *args, **kwargs): return df, args\n") == (DATA, ())


def test_without_double_star_only_the_named_kwargs_are_passed(tmp_path: Path) -> None:
    assert received(tmp_path, "@callback\ndef tell(*, stream, is_last_block_run): return stream, is_last_block_run\n")


def test_a_parameterless_function_is_called(tmp_path: Path) -> None:
    assert received(tmp_path, "@callback\ndef tell(): return 'told'\n") == "told"


def test_a_runtime_variable_is_a_kwarg(tmp_path: Path) -> None:
    text = "@callback\ndef tell(df, region, **kwargs): return df, region, kwargs\n"
    data, region, kwargs = received(tmp_path, text, region="eu", limit=3)
    assert (data, region, kwargs["limit"]) == (DATA, "eu", 3)
    assert "region" not in kwargs
    text = "@callback\ndef tell(stream, region, frame): return stream, region, frame\n"
    assert received(tmp_path, text, region="eu") == ("users", "eu", DATA)


@pytest.mark.parametrize("signature", ["data, **kwargs", "data", "stream, region, data", "stream, data, /, *rest"])
def test_a_runtime_variable_never_takes_the_place_of_the_data(tmp_path: Path, signature: str) -> None:
    text = f"@callback\ndef tell({signature}): return data\n"
    assert received(tmp_path, text, data="a variable", region="eu") is DATA


def test_the_first_parameter_has_the_data_if_a_variable_has_its_name(tmp_path: Path) -> None:
    text = "@callback\ndef tell(region, data=3, **kwargs): return region, data\n"
    assert received(tmp_path, text, region="eu") == (DATA, 3)


def test_a_runtime_variable_never_takes_the_place_of_a_transformers_data(tmp_path: Path) -> None:
    file = tmp_path / "clean.py"
    file.write_text("@transformer\ndef clean(data, region, **kwargs): return data\n")
    (function,) = load_file(file, variables=["data", "region"]).transformers
    assert function.binding.positional == "data"
    assert function.binding.arguments({"data": 1, "region": "eu", "stream": "s"}, DATA) == (
        (DATA,),
        {"region": "eu", "stream": "s", "__input": {}},
    )


def test_all_kwargs_of_a_stream_event_are_there_under_their_names(tmp_path: Path) -> None:
    kwargs = received(tmp_path, "@callback\ndef tell(**kwargs): return kwargs\n")
    assert set(kwargs) == {
        *("block_uuid", "parent_block_uuid", "ds", "hr", "execution_date", "execution_partition", "event"),
        *("pipeline_run", "pipeline_uuid", "__input", "stream", "destination_table", "index", "is_last_block_run"),
        *("retry", "block_run", "idempotency_key", "configuration", "env", "trigger_name", "pipeline_run_id", "logger"),
        *("interval_start_datetime", "interval_end_datetime", "interval_seconds", "interval_start_datetime_previous"),
    }


class TestInput:
    def test_holds_the_data_if_the_file_names_it(self, tmp_path: Path) -> None:
        text = "@callback\ndef tell(**kwargs): return kwargs['__input']\n"
        assert received(tmp_path, text) == {"export_memory": DATA}

    def test_holds_the_data_for_each_function_of_a_file_that_names_it(self, tmp_path: Path) -> None:
        text = "KEY = '__' + 'x'  # not __input\n@callback\ndef tell(**kwargs): return kwargs['__in' + 'put']\n"
        assert received(tmp_path, text) == {"export_memory": DATA}

    def test_is_empty_if_the_file_does_not_name_it(self, tmp_path: Path) -> None:
        text = "my__input = '__inputs'\n@callback\ndef tell(**kwargs): return kwargs['__in' + 'put']\n"
        assert received(tmp_path, text) == {}

    @pytest.mark.parametrize(
        "imports",
        [
            "import helper_a",
            "from helper_b import tell",
            "import pack_c.inner",
            "from pack_c import inner",
            "def late(): import helper_a",
            "import pack_d",
            "from importlib import import_module",
        ],
    )
    def test_holds_the_data_if_a_file_of_the_project_that_is_imported_names_it(
        self, tmp_path: Path, imports: str
    ) -> None:
        """Also if another module stands between them."""
        for name, text in {
            "helper_a": "def tell(**kwargs): return kwargs['__input']",
            "helper_b": "from helper_a import tell",
            "pack_c/__init__": "",
            "pack_c/inner": "import helper_b",
            "pack_d/__init__": "from . import inner",
            "pack_d/inner": "KEY = '__input'",
        }.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / f"{name}.py").write_text(text)
        text = f"{imports}\n@callback\ndef tell(**kwargs): return kwargs['__in' + 'put']\n"
        assert received(tmp_path, text) == {"export_memory": DATA}

    def test_is_empty_if_only_files_that_are_not_imported_name_it(self, tmp_path: Path) -> None:
        (tmp_path / "helper_e.py").write_text("import pack_f, json, no_such_module\n")
        (tmp_path / "pack_f").mkdir()
        (tmp_path / "pack_f" / "__init__.py").write_text("")
        for other in ("pack_f/other", "helper_g"):
            (tmp_path / f"{other}.py").write_text("KEY = '__input'")
        text = "def late(): import helper_e, pandas\n@callback\ndef tell(**kwargs): return kwargs['__in' + 'put']\n"
        assert received(tmp_path, text) == {}

    def test_holds_the_data_with_fetch_inputs_true(self, tmp_path: Path) -> None:
        text = "@callback('success', fetch_inputs=True)\ndef tell(**kwargs): return kwargs['__in' + 'put']\n"
        assert received(tmp_path, text) == {"export_memory": DATA}

    def test_is_empty_with_fetch_inputs_false(self, tmp_path: Path) -> None:
        text = "@callback('success', fetch_inputs=False)\ndef tell(**kwargs): return kwargs['__input']\n"
        assert received(tmp_path, text) == {}

    def test_is_a_legal_keyword_only_parameter(self, tmp_path: Path) -> None:
        assert received(tmp_path, "@callback\ndef tell(*, __input): return __input\n") == {"export_memory": DATA}

    def test_holds_none_where_there_is_no_data(self, tmp_path: Path) -> None:
        text = "@callback('failure')\ndef tell(**kwargs): return kwargs['__input']\n"
        assert received(tmp_path, text, status="failure") == {"export_memory": None}

    def test_answers_by_mages_name_of_the_first_input_and_lists_the_parent_alone(self, tmp_path: Path) -> None:
        text = """\
        @callback
        def tell(**kwargs):
            found = kwargs['__input']
            return found['df_1'], found.get('df_1'), found.get('df_2'), list(found), len(found)
        """
        assert received(tmp_path, text) == (DATA, DATA, None, ["export_memory"], 1)

    def test_is_the_parents_uuid_to_data(self, tmp_path: Path) -> None:
        text = "@callback\ndef tell(**kwargs): return kwargs['__input'][kwargs['parent_block_uuid']]\n"
        assert received(tmp_path, text, parent="load_crm") is DATA


def test_fetch_inputs_false_gives_none_by_position(tmp_path: Path) -> None:
    text = "@callback('success', fetch_inputs=False)\ndef tell({}): return {}\n"
    assert received(tmp_path, text.format("df, **kwargs", "df")) is None
    assert received(tmp_path, text.format("*args, **kwargs", "args")) == (None,)


@pytest.mark.parametrize("status", ["failure", "cancelled"])
def test_failure_and_cancelled_get_no_data(tmp_path: Path, status: str) -> None:
    assert received(tmp_path, f"@callback('{status}')\ndef tell(df, **kwargs): return df\n", status=status) is None


def test_legacy_functions_get_kwargs_only(tmp_path: Path) -> None:
    args, kwargs = received(tmp_path, "@on_success\ndef tell(*args, **kwargs): return args, kwargs\n")
    assert args == ()
    assert kwargs["stream"] == "users"


def test_the_error_comes_by_name_and_is_none_for_the_other_statuses(tmp_path: Path) -> None:
    text = "@callback('failure')\n@callback('success')\ndef tell(*, __error): return __error\n"
    error = received(tmp_path, text, status="failure")
    assert isinstance(error, Exception)
    assert str(error) == error.message == "made by syncblocks.callbacks.testing"
    assert (error.type, error.stream, error.block) == ("ValueError", "users", "export_memory")
    assert received(tmp_path, text) is None


def test_a_pipeline_event_gives_none_for_what_only_a_stream_has(tmp_path: Path) -> None:
    text = "@callback\ndef tell(stream, block_runs, never_started): return stream, block_runs, never_started\n"
    stream, block_runs, never_started = received(tmp_path, text, parent="pipeline")
    assert stream is None
    assert [block_run.status for block_run in block_runs] == ["success"]
    assert never_started == []


class TestNothingCanFill:
    def refused(self, tmp_path: Path, text: str, **options: Any) -> str:
        file = tmp_path / "alerts.py"
        file.write_text(dedent(text))
        with pytest.raises(CallbackLoadError) as caught:
            load_file(file, **options)
        assert caught.value.path == file
        assert caught.value.line is not None
        return str(caught.value)

    def test_a_misspelt_name_is_an_error_with_file_line_and_the_nearest(self, tmp_path: Path) -> None:
        message = self.refused(tmp_path, "x = 1\n@callback\ndef tell(df, strem, **kwargs): ...\n")
        assert message.startswith(f"{tmp_path / 'alerts.py'}:2: function 'tell'")
        assert "'strem'; did you mean 'stream'?" in message

    def test_a_second_data_parameter(self, tmp_path: Path) -> None:
        assert "'other'" in self.refused(tmp_path, "@callback\ndef tell(df, other): ...\n")

    def test_a_keyword_only_parameter(self, tmp_path: Path) -> None:
        assert "'channel'" in self.refused(tmp_path, "@callback\ndef tell(*, channel): ...\n")

    def test_unless_it_is_a_runtime_variable_or_has_a_default(self, tmp_path: Path) -> None:
        file = tmp_path / "alerts.py"
        file.write_text("@callback\ndef tell(df, region, size=1, *, channel, other=None): ...\n")
        (function,) = load_file(file, variables=["region", "channel"]).functions
        assert function.binding.needs == "data"

    def test_data_in_a_legacy_function(self, tmp_path: Path) -> None:
        message = self.refused(tmp_path, "@on_success\ndef tell(df, **kwargs): ...\n")
        assert "keyword arguments only" in message

    def test_an_error_without_a_failure(self, tmp_path: Path) -> None:
        assert "failure" in self.refused(tmp_path, "@callback('success')\ndef tell(*, __error): ...\n")

    def test_a_stream_for_the_pipeline_and_block_runs_for_a_stream(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "@callback\ndef tell(*, stream): ...\n", parents=["pipeline"])
        self.refused(tmp_path, "@callback\ndef tell(*, block_runs): ...\n", parents=["stream", "load_crm"])


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("@callback\ndef tell(df, **kwargs): ...", "data"),
        ("@callback\ndef tell(*args): ...", "data"),
        ("@callback\ndef tell(**kwargs): kwargs['__input']", "input"),
        ("@callback('success', fetch_inputs=True)\ndef tell(**kwargs): ...", "input"),
        ("@callback\ndef tell(**kwargs): ...", None),
        ("@callback\ndef tell(stream): ...", None),
        ("@callback('success', fetch_inputs=False)\ndef tell(df, **kwargs): kwargs['__input']", None),
        ("'__input'\n@callback\ndef tell(stream): ...", None),
    ],
)
def test_data_is_needed_only_where_a_function_can_receive_it(tmp_path: Path, text: str, needs: str | None) -> None:
    file = tmp_path / "alerts.py"
    file.write_text(text)
    (function,) = load_file(file).functions
    assert function.binding.needs == needs
    assert function.needs_data("success", "stream") is (needs is not None)
    assert not function.needs_data("failure", "stream")
    assert not function.needs_data("success", "pipeline")


def test_decorated_functions_are_read_through_wraps(tmp_path: Path) -> None:
    text = """
    import functools
    def logged(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            return 'logged', function(*args, **kwargs)
        return inner

    @callback
    @logged
    def tell(df, *, stream): return df, stream
    """
    assert received(tmp_path, text) == ("logged", (DATA, "users"))


def test_coroutine_functions_are_run_to_their_end(tmp_path: Path) -> None:
    text = """
    import asyncio
    @callback
    async def tell(df, **kwargs):
        await asyncio.sleep(0)
        return df
    """
    assert received(tmp_path, text) is DATA


def test_a_binding_passes_each_argument_once() -> None:
    from syncblocks.callbacks.binding import bind
    from syncblocks.callbacks.kwargs import RESERVED

    functions: list[Callable[..., Any]] = [
        lambda stream, /, df, index=5, **kwargs: (stream, df, index, kwargs),
        lambda df, stream, /, index=5, **kwargs: (stream, df, index, kwargs),
        lambda index, stream, *df, **kwargs: (stream, df[0], index, kwargs),
    ]
    for function in functions:
        args, kwargs = bind(function, known=RESERVED).arguments({"stream": "s", "index": 7, "ds": "d"}, DATA)
        assert function(*args, **kwargs) == ("s", DATA, 7, {"ds": "d", "__input": {}})
