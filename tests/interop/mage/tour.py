"""One run with everything that a callback can hear of: three streams, one of which a transformer fails."""

from __future__ import annotations

from .stage import Stage

TIDY = """\
if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer
@transformer
def tidy(data, *args, **kwargs):
    if kwargs['stream'] == 'broken':
        raise ValueError('a broken record')
    return data
"""

CALLS = """\
if 'callback' not in globals():
    from mage_ai.data_preparation.decorators import callback
@callback('success')
def first(parent_block_data, **kwargs):
    print('heard of', kwargs['stream'])
    say('first', parent_block_data, kwargs)
@callback
def bare(data, **kwargs):
    say('bare', data, kwargs)
@callback()
def empty(*args, **kwargs):
    say('empty', args[0], kwargs)
@callback('failure')
def failed(parent_block_data, **kwargs):
    say('failed', parent_block_data, {**kwargs, 'error': str(kwargs['__error']), 'type': kwargs['__error'].type})
@callback('cancelled')
def cancelled(parent_block_data, **kwargs):
    say('cancelled', parent_block_data, kwargs)
"""

INPUTS = """\
@callback
def inputs(**kwargs):
    given = kwargs['__input']
    assert given.get('df_1') is given['df_1'] and given['df_1'] is given[kwargs['parent_block_uuid']]
    say('inputs', given['df_1'], {**kwargs, 'parents': list(given), 'type': type(given['df_1']).__module__})
@callback('success', fetch_inputs=False)
def without(*args, **kwargs):
    say('without', args[0], kwargs)
@on_success
def legacy(**kwargs):
    say('legacy', None, kwargs)
@on_failure
def legacy_failure(**kwargs):
    say('legacy_failure', None, kwargs)
"""

FAILS = """\
@callback
def breaks(**kwargs):
    raise RuntimeError('not today')
@callback
def goes_on(**kwargs):
    say('goes_on', None, kwargs)
"""

WHOLE = "@callback\n@callback('failure')\ndef whole(*args, **kwargs):\n    say('whole', args[0], kwargs)\n"


def tour(stage: Stage) -> Stage:
    """Run the tour."""
    stage.write("shop/broken.csv", "id\n1\n")
    stage.write("transformers/tidy.py", TIDY)
    files = {"calls": CALLS, "inputs": INPUTS, "fails": FAILS, "whole": WHOLE}
    for name, text in files.items():
        stage.write(f"callbacks/{name}.py", text)
    stage.write("event.json", '{"key": "v"}')
    stage.save(
        {"stream": "visits", "destination_table": "dim_visits"},
        {"stream": "words"},
        {"stream": "broken"},
        concurrency=1,
        allow_blocks_to_fail=True,
        variables={"region": "us"},
        transformers=[{"block": "tidy", "file": "transformers/tidy.py", "configuration": {"limit": 3}}],
        callbacks=[
            {"file": "callbacks/calls.py", "on": ["read", "tidy", "write"]},
            {"file": "callbacks/inputs.py", "on": ["tidy"]},
            {"file": "callbacks/fails.py", "on": ["write"], "streams": ["visits"], "attempts": 1},
            {"file": "callbacks/whole.py", "on": ["pipeline"]},
        ],
    )
    words = ("--trigger", "207", "--event", "event.json", "--variable", "region=eu")
    interval = ("--interval-start", "2024-01-01", "--interval-end", "2024-01-02")
    stage.command("run", *words, *interval, code=1, ENV="prod")
    return stage
