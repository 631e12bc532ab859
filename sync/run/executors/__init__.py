"""Executors: where the streams of an attempt run. The run store decides; an executor only carries.

What runs on a worker is in `worker/`; `bundle` and `protocol` are of both sides, everything else of the coordinator's.
"""
