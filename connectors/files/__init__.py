"""CSV, JSON lines and Parquet files as sources and destinations, on local disk and on object stores.

`storage` accesses files, `paths` maps files to streams, `type_inference` finds the types of texts, `formats` is the
interface of each format, `manifest` keeps the ledger, `destination` and `load` commit.
"""
