"""`syncblocks schema`: the JSON Schema of the pipeline file, for editors."""

from __future__ import annotations

import click

from .console import Console
from .options import common


@click.command("schema")
@common
def schema_command(console: Console) -> int:
    """Print the JSON Schema of the pipeline file.

    In an editor: save it, and put `# yaml-language-server: $schema=syncblocks.schema.json` on top of the file.
    """
    import json

    from ..config import pipeline_json_schema

    schema = pipeline_json_schema()
    if console.is_json:
        console.emit(schema)
    else:
        console.echo_lines(json.dumps(schema, indent=2))
    return 0
