"""Settings of Delta tables."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from ..settings import Config, Settings, is_url, refuse_ambiguous

#: Schemes that the library opens, each with an atomic "create if absent" on which commits rest.
SCHEMES = ("file", "s3", "s3a", "gs", "az", "abfs", "abfss", "adl")

#: Options with which an object store is written without that; with them two writers overwrite each other's commits.
_UNSAFE = ("allow_unsafe_rename", "conditional_put", "copy_if_not_exists")


def _checked(path: str) -> str:
    if "%" in path:
        raise ValueError("may not have a `%`: the library takes it for an escape, and would write elsewhere")
    if is_url(path):
        scheme = path.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise ValueError(f"URLs of scheme {scheme!r} hold no Delta tables; allowed: {', '.join(SCHEMES)}")
        refuse_ambiguous(path, other="`storage_options`", is_of_files=True)
    return path


class DeltaSettings(Settings):
    """Where the tables are, and how their files are split."""

    path: Annotated[str, AfterValidator(_checked)] = Field(
        min_length=1, description="folder of the tables, one folder each; relative to the pipeline file, or a URL"
    )
    storage_options: Annotated[dict[str, Any], AfterValidator(Config)] = Field(
        default_factory=Config,
        description="passed to deltalake for URLs: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and the like; texts",
    )
    partition_by: list[str] = Field(
        default_factory=list, description="columns by whose values the files of a new table are split"
    )

    @field_validator("storage_options")
    @classmethod
    def _are_safe(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if name.lower().removeprefix("aws_").removeprefix("s3_") in _UNSAFE:
                raise ValueError(
                    f"{name!r} is refused: without the store's conditional PUT two runs overwrite each other's commits"
                )
        return Config({name: str(value) for name, value in options.items()})

    @field_validator("partition_by")
    @classmethod
    def _are_columns(cls, columns: list[str]) -> list[str]:
        if len({name.casefold() for name in columns}) < len(columns):
            raise ValueError("names a column twice")
        if call := next((name for name in columns if name.endswith(")")), ""):
            raise ValueError(f"{call!r}: Delta splits by whole values; add a column of them by a transformer")
        return columns
