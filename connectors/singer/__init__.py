"""Singer both ways: any tap as a source, read in blocks straight into Arrow."""
