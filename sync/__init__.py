"""The engine: pipelines, runs, the run store and the command line."""
