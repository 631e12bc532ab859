"""CSV, JSON lines and Parquet, on local disk and on object stores: sources and destinations of one shape.

Rooms: `storage` touches files, `paths` says which files are which stream, `text` turns columns into text and back,
`infer` guesses types, `formats` reads and writes each format, `manifest` keeps the ledger, `destination` commits.
"""
