"""Steps of a stream before or after its load. Each file is named after the setting of the pipeline file."""
