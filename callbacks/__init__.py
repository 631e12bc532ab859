"""Callback blocks: marking, loading, binding and calling user functions."""
