"""Rejected records: they do not fit, and stay beside their table if the stream says `on_rejected: keep`.

- A source reads `ReadSpec.max_rejected`. None: the source raises at the first rejected record. A number: the source
  leaves rejected records out of its batches and yields them as one `Rejected` event, before the next checkpoint.
  `halving` finds them in a batch whose conversion fails; `records.rejection` makes the value to keep. A source does
  not count them: the writer does.
- A destination with the capability `KeepsRejected` takes `Rejected` events. It adds their records, and those that it
  rejects itself, to a `limits.Rejections`, and writes them into the table `_syncblocks_rejected` (files: a folder of
  that name) in the commit of the data. `Commit.rejected` says how many. Before each commit the destination calls
  `Rejections.judge`, which compares their number with the records of the commit.
"""
