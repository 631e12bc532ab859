"""Shared by all SQL systems: names, ledger, staging, merge, and reads in the order of a bookmark."""
