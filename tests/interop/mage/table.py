"""The rows of `docs/from-mage.md`: what Mage's callbacks and integration pipelines have, and what stands here.

`python -m tests.interop.mage` writes the page; `checks.py` has the check of each row that says `works` or `differently`.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A feature of Mage."""

    id: str
    feature: str
    #: One of `page.WORDS`, alone, with a colon and what is to be said, or as the text of a link.
    here: str


CALLBACKS = (
    Row(
        "C1",
        "Callback block",
        "works: a Python file under [`callbacks`](pipeline.md#callbacks), with parents in `on` and no block run of its own",
    ),
    Row(
        "C2",
        "Several callback blocks of one parent",
        "differently: each has a queue and a process of its own; [they run side by side](callbacks.md#a-callback-file), not in order",
    ),
    Row(
        "C3",
        "Several parents of one callback block",
        "works: [`on`](callbacks.md#parents) lists them; a call gets the data of the parent that it is for",
    ),
    Row(
        "C4",
        "Several functions in one file",
        "works: [in the order in which the file defines them](callbacks.md#a-callback-file)",
    ),
    Row(
        "C5",
        "`@callback('success')`",
        "differently: called after the block run is stored, [at least once](callbacks.md#delivery)",
    ),
    Row("C6", "`@callback` without parentheses", "[works](callbacks.md#decorators)"),
    Row("C7", "`@callback()`", "[works](callbacks.md#decorators)"),
    Row(
        "C8",
        "`@callback('failure')`",
        "differently: recorded once, [after the last retry](callbacks.md#statuses), and delivered at least once",
    ),
    Row(
        "C9",
        "`@callback('cancelled')`",
        "differently: also for a timeout, or where [another block or stream failed](callbacks.md#statuses); a stream that never started has no event",
    ),
    Row(
        "C10",
        "`@callback('cancelled')` with a positional parameter",
        "works: [it receives None](callbacks.md#arguments)",
    ),
    Row(
        "C11", "Unknown status", "works: an error when the file is loaded, which names the allowed ones and the nearest"
    ),
    Row("C12", "`fetch_inputs=False`", "[works](callbacks.md#decorators)"),
    Row(
        "C13",
        "Positional argument: the parent's data",
        "differently: [a pandas DataFrame with Arrow-backed types](callbacks.md#arguments), for `success` only; None beyond `spool_limit`",
    ),
    Row(
        "C14",
        "`__input`, with `df_1`",
        "differently: filled [if the file names `__input`](callbacks.md#arguments) or the decorator says `fetch_inputs=True`",
    ),
    Row("C15", "`block_uuid`", "[works](callbacks.md#arguments)"),
    Row(
        "C16",
        "`parent_block_uuid`",
        "works: [the name of the block](callbacks.md#arguments); `pipeline` for that parent",
    ),
    Row("C17", "`ds`", "[works](callbacks.md#arguments)"),
    Row("C18", "`hr`", "[works](callbacks.md#arguments)"),
    Row(
        "C19",
        "`execution_date`",
        "differently: [the start of the run](callbacks.md#arguments), or `run --execution-date`; `run --interval-start` says what a run is for",
    ),
    Row("C20", "`execution_partition`", "works: the trigger id is [`run --trigger`](command-line.md#run), else 0"),
    Row("C21", "`event`", "works: [`run --event`](command-line.md#run)"),
    Row(
        "C22",
        "`pipeline_run`",
        "works: [`.id`, `.pipeline_uuid`, `.execution_date`](callbacks.md#arguments) and the same repr; its `status` is `success`, not `completed`",
    ),
    Row("C23", "`pipeline_uuid`", "[works](callbacks.md#arguments)"),
    Row(
        "C24",
        "`stream`",
        "works: with [`stream_names: bare`](pipeline.md#pipeline), which the importer writes; the default is the name with its schema",
    ),
    Row("C25", "`destination_table`", "[works](callbacks.md#arguments)"),
    Row(
        "C26",
        "`index`",
        "differently: [the place in the order](callbacks.md#index-and-is_last_block_run) in which the block runs of one type ended in this attempt, from 0. Mage counts the chunks of one stream. The importer names the lines to change",
    ),
    Row(
        "C27",
        "`is_last_block_run`",
        "differently: [True for exactly one block run](callbacks.md#index-and-is_last_block_run) of each block type in an attempt. In Mage each stream has one, at its last chunk. The importer names the lines to change",
    ),
    Row(
        "C28",
        "No arguments of integration elsewhere",
        "works: [the parent `pipeline`](callbacks.md#arguments) gets neither `stream` nor `index`",
    ),
    Row(
        "C29",
        "`__error`",
        "works: [an exception](callbacks.md#arguments) with message, type, traceback, stream and block",
    ),
    Row(
        "C30",
        "`retry`",
        "differently: it counts [the calls of this delivery](callbacks.md#arguments), not those of the parent block",
    ),
    Row("C31", "`configuration`", "works: [`configuration`](pipeline.md#source-and-destination) of the parent block"),
    Row("C32", "Runtime variables as keyword arguments", "[works](callbacks.md#arguments)"),
    Row(
        "C33",
        "Interval, `env`, `trigger_name`, `pipeline_run_id`",
        "differently: an interval comes from the [schedule](serve.md#what-it-promises), the [API](api.md#start-a-run) or [`run --interval-start`](command-line.md#run), `env` from `$ENV`, and [`trigger_name`](callbacks.md#arguments) may be `cli` or `retry`",
    ),
    Row(
        "C34",
        "A failing callback does not touch its parent",
        "differently: the call is [made again](callbacks.md#delivery), up to `attempts`; a dead delivery makes the exit code 3",
    ),
    Row(
        "C35",
        "Output of a callback in the log",
        "differently: [kept with the call](callbacks.md#where-a-callback-runs), and shown by `callbacks history`",
    ),
    Row("C36", "`@on_success`, `@on_failure`", "[works](callbacks.md#decorators)"),
    Row(
        "C37",
        "`has_callback`",
        "instead: the importer makes [an entry of `callbacks`](how-to/from-mage.md#write-the-pipeline-files) of it",
    ),
    Row(
        "C38",
        "Templates of callback files",
        "works: the decorators [stand there or can be imported](callbacks.md#a-callback-file); [`trigger_pipeline`](callbacks.md#starting-another-pipeline) has no `repo_path` and no `remote_blocks`",
    ),
    Row(
        "C39",
        "Callbacks in a notebook",
        "differently: [`run_pipeline`](python.md#run_pipeline) delivers them and counts what failed; [`callbacks test`](callbacks.md#trying-a-callback) shows errors",
    ),
    Row(
        "C40",
        "Callbacks of dynamic blocks",
        "instead: there are no dynamic blocks; a glob under [`streams`](pipeline.md#streams) gives each stream its own events",
    ),
    Row(
        "C41",
        "Callbacks of replica blocks",
        "instead: there are no replicas; several blocks may name [one `file`](pipeline.md#transformers), each under its own `block`",
    ),
    Row(
        "C42",
        "Integration blocks within batch pipelines",
        "instead: there are no batch pipelines; a program calls [`run_pipeline`](python.md#run_pipeline), which calls the callbacks",
    ),
    Row(
        "C43",
        "No callback where a conditional is false",
        "instead: [`when`](hooks.md#conditions-and-messages) and `streams` of a callback block",
    ),
    Row(
        "C44",
        "Remote executors",
        "instead: streams run on the workers of [a Dask cluster](scale.md), and the run's own process calls the callbacks",
    ),
    Row(
        "C45",
        "Callbacks after a timeout",
        "differently: [`timeout_s`](pipeline.md#pipeline) bounds a stream, which ends as `cancelled`; [`run_timeout_s`](pipeline.md#pipeline) bounds a whole run, and the importer writes it",
    ),
    Row("C46", "Callbacks of the whole pipeline", "works: [`on: [pipeline]`](callbacks.md#parents)"),
    Row(
        "C47",
        "API for callback blocks",
        "instead: the [pipeline file](pipeline.md#callbacks) says them, or the same keys as a mapping in [Python](python.md#load_pipeline); [`callbacks list`](command-line.md#callbacks-list) shows what is called",
    ),
)

DATA = (
    Row("S1", "One source, transformers, one destination", "[works](pipeline.md)"),
    Row(
        "S2",
        "Names of block runs",
        "differently: [`block:stream`](run-store.md#tables), without a number, since a stream is not cut into chunks",
    ),
    Row(
        "S3",
        "Chunks of a stream",
        "instead: one read in batches, with [commits at checkpoints](reliability.md#where-a-stream-starts)",
    ),
    Row(
        "S4",
        "`batch_fetch_limit`",
        "instead: `checkpoint_records` of the [connector](connectors.md#postgres), which the importer writes",
    ),
    Row(
        "S5",
        "`subbatch_fetch_limit`",
        "instead: the size of a batch, such as `batch_size_bytes` of [postgres](connectors.md#postgres) or `batch_size` of [csv](connectors.md#csv)",
    ),
    Row(
        "S6",
        "Streams one after another",
        "differently: [`concurrency: 1`](pipeline.md#pipeline), which the importer writes; the default runs several at once",
    ),
    Row(
        "S7",
        "`run_in_parallel`",
        "differently: [`concurrency`](pipeline.md#pipeline) of the pipeline, not of single streams",
    ),
    Row(
        "S8",
        "Source, transformers, destination for each chunk",
        "differently: [batch by batch](architecture.md#one-run-in-order); callbacks are called after the stream, in processes of their own",
    ),
    Row(
        "S9",
        "`allow_blocks_to_fail`",
        "differently: [the same key](pipeline.md#pipeline) of the pipeline, which the importer writes if all triggers agree; a block after the failed one ends as [`cancelled`](callbacks.md#parents)",
    ),
    Row(
        "S10",
        "A failed stream stops the others",
        "works: the default; [callbacks are delivered](callbacks.md#statuses) all the same",
    ),
    Row("S11", "Statuses of block runs", "differently: [`success`, `failure` or `cancelled`](callbacks.md#parents)"),
    Row(
        "S12",
        "Automatic retry of a stream",
        "differently: [`retries` and `retry_delay_s`](reliability.md#retries) of the pipeline or of a stream, for errors that a repetition can mend",
    ),
    Row(
        "S13",
        "Retry what is incomplete",
        "differently: [`runs retry`](reliability.md#retries) runs the streams that did not succeed, from their last commit",
    ),
    Row(
        "S14",
        "Retry from a block",
        "instead: [`runs retry`](reliability.md#retries); all blocks of a stream run together",
    ),
    Row("S15", "Retry one stream", "works: [`runs retry --stream`](command-line.md#runs-retry)"),
    Row(
        "S16",
        "Conditional blocks",
        "works: [`when`](pipeline.md#conditions) of streams and transformers, decided in the plan, and [of callbacks](hooks.md#conditions-and-messages). `@condition` itself is not called; the importer writes `when` for a data loader's comparison",
    ),
    Row(
        "S17",
        "FULL_TABLE",
        "differently: read [in one snapshot](reliability.md#where-the-guarantee-ends) where the database has snapshots, and replaced by default, not added again",
    ),
    Row(
        "S18",
        "Empty the table before a full sync",
        "works: [`write_disposition: replace`](pipeline.md#streams), the default of FULL_TABLE",
    ),
    Row(
        "S19",
        "INCREMENTAL",
        "differently: [at or past the bookmark](reliability.md#records-at-the-bookmark); records that were committed already are recognised",
    ),
    Row("S20", "LOG_BASED", "differently: out of PostgreSQL, [merged or appended](log-based.md)"),
    Row("S21", "Initial sync of LOG_BASED", "works: [at one moment, without a gap](log-based.md)"),
    Row(
        "S22",
        "Column of soft deletes, `_mage_deleted_at`",
        "differently: [`deletes: soft`](pipeline.md#deleted-records) marks in `_deleted_at` what the source no longer has. It works without a log, and with LOG_BASED [from the log](log-based.md)",
    ),
    Row(
        "S23",
        "Catalog file",
        "differently: [`discover --save`](types.md#the-catalog-file) writes keys and types to a YAML file; `catalog` names it",
    ),
    Row(
        "S24", "Selection of streams", "differently: [`streams`](pipeline.md#streams), with globs and `selected: false`"
    ),
    Row("S25", "Selection of columns", "differently: [`columns`](pipeline.md#streams) with `include` or `exclude`"),
    Row(
        "S26",
        "`key_properties`",
        "differently: the primary key of a table that replace or merge makes in [PostgreSQL](connectors.md#postgres), MySQL or SQLite; of [DuckDB](connectors.md#duckdb) with `primary_key: true`",
    ),
    Row(
        "S27",
        "`unique_constraints`",
        "[works](pipeline.md#unique-columns) with merge; `key_properties` stay the primary key",
    ),
    Row("S28", "`unique_conflict_method`", "[works](pipeline.md#streams)"),
    Row(
        "S29",
        "`bookmark_properties`, `replication_key`",
        "works: [`bookmark_properties`](pipeline.md#streams); the importer takes `replication_key` too",
    ),
    Row(
        "S30",
        "`bookmark_property_operators`",
        "differently: [`>=` and `>`](pipeline.md#streams), which the importer takes over; others are [filters](pipeline.md#filters)",
    ),
    Row(
        "S31",
        "`partition_keys`",
        "differently: [`partition_by`](connectors.md#csv) of a destination of files makes Hive's folders, also by year, "
        "month or day; a table in a database keeps the partitions that it was made with, and takes records by "
        "[`append`](pipeline.md#streams) or merge",
    ),
    Row(
        "S32",
        "`auto_add_new_fields`",
        "differently: the default, [`on_schema_change: evolve`](types.md#when-columns-change)",
    ),
    Row(
        "S33",
        "`disable_column_type_check`",
        "instead: [`on_lossy`](types.md) for columns, [`on_rejected: keep`](reliability.md#rejected-records) for single records",
    ),
    Row("S34", "`destination_table`", "[works](pipeline.md#streams)"),
    Row(
        "S35",
        "`_patterns.destination_table`",
        "differently: [`destination_table`](pipeline.md#streams) of an entry with a glob, such as `raw_{{ stream | table }}`",
    ),
    Row(
        "S36",
        "Types of properties",
        "differently: [Arrow's types](types.md#what-becomes-of-each-type), and [`types`](types.md#types-that-you-say) of a stream",
    ),
    Row(
        "S37",
        "`aliases`",
        "instead: [`rename`](pipeline.md#transformers) of the transformer, which keeps types and keys",
    ),
    Row(
        "S38",
        "`variables()` in YAML",
        "differently: in every string of [the pipeline file](pipeline.md#templates), not in the catalog file",
    ),
    Row("S39", "`env_var()`", "[works](pipeline.md#templates)"),
    Row(
        "S40",
        "`mage_secret_var()`",
        "instead: [`secret('x')`](pipeline.md#templates), from a file or an environment variable",
    ),
    Row(
        "S41",
        "Secret stores of AWS, Azure and Google",
        "works: [`aws_secret_var()`, `azure_secret_var()`, `gcp_secret_var()` and `vault_secret_var()`](pipeline.md#stores-of-secrets), with the extra `secrets`",
    ),
    Row(
        "S42",
        "`json_value`, `n_days_ago`",
        "differently: [they count](pipeline.md#templates) from the run's execution date, so a retry gets the same days; a path has names and places, no filters",
    ),
    Row(
        "S43",
        "Secrets masked in logs",
        "differently: values of [four characters or more](security.md#what-is-masked), nested ones and their usual spellings too",
    ),
    Row(
        "S44",
        "State file",
        "instead: [the ledger](reliability.md#where-a-stream-starts) in the destination, a row for each pipeline, stream and table; triggers share it",
    ),
    Row(
        "S45", "When the state is written", "differently: [in the transaction of the data](reliability.md#the-promise)"
    ),
    Row("S46", "Resume after a failure", "works: from [the last commit](reliability.md#where-a-stream-starts)"),
    Row(
        "S47",
        "Edit bookmarks",
        "differently: by commands, [`state set`](command-line.md#state-set) and [`state rewind`](command-line.md#state-rewind)",
    ),
    Row(
        "S48",
        "Reset a stream",
        "works: [`state reset`](command-line.md#state-reset), or [`run --full-refresh`](how-to/re-sync-a-table.md#from-scratch)",
    ),
    Row(
        "S49",
        "Bookmark of one trigger",
        "differently: [`run --bookmark`](reliability.md#records-at-the-bookmark), for one run",
    ),
    Row(
        "S50",
        "Transformers, one record at a time",
        "works: [`frames: record`](pipeline.md#transformers), which the importer writes; the default gives batches",
    ),
    Row("S51", "Leave a record out", "works: [return no row](pipeline.md#transformers)"),
    Row("S52", "Several transformers", "works: [in the order of the file](pipeline.md#pipeline)"),
    Row("S53", "`rename_columns`", "[works](pipeline.md#transformers); `rename` in the file does the same"),
    Row(
        "S54",
        "Arguments of transformers",
        "differently: [the same names](pipeline.md#transformers); `index` counts the calls for this stream",
    ),
    Row(
        "S54a",
        "`@test` functions",
        "differently: [`transformers test`](command-line.md#transformers-test) and "
        "[`callbacks test`](command-line.md#callbacks-test) call them; a run does not",
    ),
    Row(
        "S55",
        "`_mage_created_at`, `_mage_updated_at`",
        "works: [`mage_columns: true`](pipeline.md#added-columns); a source's own columns of these names are left out, "
        "unless they are a key or a bookmark",
    ),
    Row(
        "S56",
        "Creation of tables and schemas",
        "differently: made if missing; with [`create_schemas: false`](connectors.md#postgres) a table in a missing schema is refused",
    ),
    Row(
        "S57",
        "Changes of columns",
        "works: columns are added, and [widened](types.md#when-columns-change) where the table can be altered",
    ),
    Row(
        "S58",
        "`lower_case`, `allow_reserved_words`",
        "differently: [`naming: mage`](pipeline.md#naming); `lower` and `snake_case` leave reserved words as they are",
    ),
    Row("S59", "`maximum_batch_size_mb`", "instead: [`memory`](pipeline.md#memory) of the pipeline"),
    Row(
        "S60",
        "`clean_up_input_file`",
        "instead: no files between the blocks; data for callbacks is [deleted after the last delivery](callbacks.md#arguments)",
    ),
    Row(
        "S61",
        "`_streams` with columns of your own",
        "instead: [`add_columns`](pipeline.md#added-columns), and [`partition_by`](connectors.md#csv) for its `partition_keys`",
    ),
    Row(
        "S62",
        "Batch load into Snowflake and BigQuery",
        "instead: a [Singer target](singer.md#a-target-as-a-destination), or [sqlalchemy](connectors.md#sqlalchemy) with the database's dialect, which is untested here",
    ),
    Row(
        "S63",
        "`_start_date`, `_end_date`",
        "instead: `{{ interval_start_datetime }}` in a [filter](pipeline.md#filters); transformers get [`query`](pipeline.md#transformers) from variables of these names",
    ),
    Row("S64", "Filters on columns", "differently: [`where`](pipeline.md#filters), with comparisons and lists"),
    Row(
        "S65",
        "Metrics of a run",
        "differently: rows, bytes and bookmarks of each block run, in [`runs show`](command-line.md#runs-show), in [`block_run`](callbacks.md#arguments) and in Python's [result](python.md#run_pipeline)",
    ),
    Row(
        "S66",
        "Test the connection",
        "works: [`check`](command-line.md#check), which also names the GRANT that is missing in PostgreSQL, MySQL and MariaDB",
    ),
    Row("S67", "List the streams of a source", "works: [`discover`](command-line.md#discover)"),
    Row("S68", "Sample of the data", "works: [`preview`](command-line.md#preview), with transformers applied"),
    Row("S69", "Number of records", "works: [`count`](command-line.md#count), of the source and of the destination"),
    Row(
        "S70",
        "Triggers: schedule, API, event, backfill",
        "instead: [`syncblocks serve`](serve.md) starts pipelines by their `schedule`, which the importer writes for a pipeline with one active trigger, by its pages and by its [API](api.md); an event is a call of the API. [cron or systemd](how-to/cron-and-systemd.md), [Airflow](how-to/airflow.md), [Python](python.md#run_pipeline) or [another pipeline's callback](callbacks.md#starting-another-pipeline) start a run, too. A backfill is a run for each [interval](command-line.md#run)",
    ),
    Row(
        "S71",
        "Settings of triggers",
        "instead: [`schedule`](pipeline.md#schedule) has `missed` and `overlap`; a second start is [refused or waits](reliability.md#retries), and [keys of the file](pipeline.md#pipeline) say the rest; the one limit over several pipelines is `--max-runs` of [`serve`](serve.md)",
    ),
    Row(
        "S72",
        "Notifications, SLA",
        "instead: [`notify`](hooks.md#notify) sends to Slack, mail and others, and the importer writes it for Slack, Discord and Google Chat; [`expect`](pipeline.md#expect) says when a pipeline is late, and [`status --alert`](command-line.md#status) tells it",
    ),
    Row("S73", "Memory guard", "instead: [`memory`](pipeline.md#memory) bounds what a run holds of its records"),
    Row(
        "S74",
        "Recovery after a crash",
        "works: [the next start](reliability.md#after-a-crash) closes the dead run, delivers its callbacks and goes on",
    ),
    Row(
        "S75",
        "Two runs of a pipeline at once",
        "differently: [one at a time](reliability.md#retries); the second is refused, or waits with `--wait`",
    ),
    Row(
        "S76",
        "Sources and destinations of your own",
        "works: a class in [a file of the project](write-a-connector.md#7-give-it-a-name) or an installed package, a [Singer class](singer.md#classes-of-singer-sdk-in-this-process), or any Singer plugin",
    ),
    Row("S77", "Singer taps and targets", "works: [any of them](singer.md), as a process of its own"),
    Row(
        "S78",
        "Integration blocks in batch pipelines",
        "instead: [`run_pipeline`](python.md#run_pipeline) in a program, a notebook or an orchestrator's task",
    ),
    Row("S79", "Run without Docker", "works: [`pip install`](tutorial.md#1-install)"),
    Row(
        "S80",
        "A stream without records",
        "works: it has its block runs and events, and [its table is made](reliability.md#where-a-stream-starts); an empty file, which has no columns, is skipped until it has once been written",
    ),
    Row("S81", "Payload of an event as `event`", "works: [`run --event`](command-line.md#run)"),
    Row(
        "S82",
        "Deleted records",
        "differently: [`deletes`](pipeline.md#deleted-records) deletes or marks them after a comparison of keys, without a log; replace drops them",
    ),
)
