"""Print each event with its keyword arguments. Several functions a file, several statuses a function."""

NAMES = (
    "block_uuid",
    "parent_block_uuid",
    "ds",
    "hr",
    "execution_date",
    "execution_partition",
    "event",
    "pipeline_run",
    "pipeline_uuid",
    "stream",
    "destination_table",
    "index",
    "is_last_block_run",
    "block_run",
    "retry",
    "idempotency_key",
    "team",
)


def show(status, kwargs):
    print(status, {name: kwargs[name] for name in NAMES if name in kwargs})


@callback  # bare: success
def succeeded(**kwargs):
    show("success", kwargs)


@callback("failure")
def failed(__error, **kwargs):
    show("failure", kwargs)
    print(f"{__error.type} in {__error.block}: {__error.message}")


@callback("cancelled")
def cancelled(**kwargs):
    show("cancelled", kwargs)


@callback("success")
@callback("failure", fetch_inputs=False)
def either(parent_block_uuid, pipeline_run, **kwargs):
    """Stacked: called for both. The pipeline's own event comes last, with all block runs."""
    if parent_block_uuid == "pipeline":
        print(f"run {pipeline_run.id} ended as {pipeline_run.status}: {len(kwargs['block_runs'])} block runs")
        print(f"never started: {kwargs['never_started']}")
