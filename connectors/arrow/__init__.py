"""Helpers over Arrow: computing, decimals, texts, times, casts, and how exactly a type is kept."""
