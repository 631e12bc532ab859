"""The remains of a dead process: its runs, streams, staging tables and ranges.

The ledger decides, after a token has fenced the process.
"""
