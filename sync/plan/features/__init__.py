"""Rules and planned steps of optional features. Each file is named after the setting of the pipeline file."""
