"""Executors: where the streams of an attempt run. The run store decides; an executor only carries."""
