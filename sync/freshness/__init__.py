"""Freshness: which pipelines of a folder are late, dead or broken, and who is told."""

from .alert import alert, alert_urls
from .heartbeat import heartbeat, heartbeat_url
from .judge import Judgement, judge
from .look import Looked, look_at_folder

__all__ = ["Judgement", "Looked", "alert", "alert_urls", "heartbeat", "heartbeat_url", "judge", "look_at_folder"]
