"""What all SQL systems share: names, ledger, staging, merge, and reads in the order of a bookmark."""
