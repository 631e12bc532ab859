"""One line for each stream, on success, failure and cancellation. No import is needed: `callback` is just there."""


@callback("success")
def tell_success(stream, destination_table, index, block_run, **kwargs):
    print(f"#{index} {stream} -> {destination_table}: {block_run.rows} rows")


@callback("failure")
def tell_failure(stream, __error, **kwargs):
    print(f"{stream} failed in block {__error.block}: {__error.message}")


@callback("cancelled")
def tell_cancelled(stream, **kwargs):
    print(f"{stream} was cancelled")
