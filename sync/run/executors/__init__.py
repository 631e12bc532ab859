"""Executors: where the streams of an attempt run. The run store decides; an executor only transports.

`worker/` runs on a worker; `bundle` and `protocol` belong to both sides, everything else to the coordinator.
"""
