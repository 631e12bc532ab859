"""`before` of a pipeline or a stream: statements that are run before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from syncblocks.connectors.named_parameters import parameter_names

from ..errors import nearest_match
from .base import Model, wrong
from .hooks import Text, parameters_of
from .value_types import as_list

#: Names that the statement of a pipeline, and of a stream, may bind besides its own parameters.
OF_PIPELINE = ("pipeline_uuid", "ds", "hr", "execution_date", "execution_partition", "env")
OF_STREAM = (*OF_PIPELINE, "stream", "destination_table")


class BeforeStatement(Model):
    """One statement, run in the source's or the destination's database."""

    sql: Text = Field(repr=False, description="One SQL statement; `:ds` is a bound parameter.")
    connection: Literal["source", "destination"] = Field(description="The side whose database runs it.")
    parameters: Annotated[dict[str, Any], AfterValidator(parameters_of)] = Field(
        default_factory=dict, repr=False, description="Further parameters: constants, or templates of the file."
    )

    def document(self) -> dict[str, str]:
        """Return the statement for `plan --json`."""
        return {"connection": self.connection, "sql": self.sql}


def _named(allowed: Sequence[str]) -> Any:
    """Return what checks the parameters of a list of statements."""

    def check(statements: tuple[BeforeStatement, ...]) -> tuple[BeforeStatement, ...]:
        for place, each in enumerate(statements, 1):
            names = parameter_names(each.sql)
            for name in names:
                if name not in allowed and name not in each.parameters:
                    known = [*allowed, *each.parameters]
                    nearest = nearest_match(name, known)
                    meant = f", did you mean :{nearest}?" if nearest else ""
                    listed = ", ".join(f":{item}" for item in sorted(known))
                    raise wrong(f"statement {place}: there is no parameter :{name}{meant} ({listed})")
            for name in each.parameters:
                if name not in names:
                    raise wrong(f"statement {place}: parameter {name!r} is not used: it has no :{name}")
        return statements

    return AfterValidator(check)


_Statements = Annotated[tuple[BeforeStatement, ...], BeforeValidator(as_list)]
BeforePipeline = Annotated[_Statements, _named(OF_PIPELINE)]
BeforeStream = Annotated[_Statements, _named(OF_STREAM)]
