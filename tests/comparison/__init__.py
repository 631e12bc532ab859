"""What pipelines of many settings plan, execute and store, as text files that two commits can be compared by."""
