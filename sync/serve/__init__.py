"""`syncblocks serve`: starts what is due, each run a process of its own. It opens no source and no destination."""

from .files import PipelineFiles, ServedFile
from .server import Server

__all__ = ["PipelineFiles", "ServedFile", "Server"]
