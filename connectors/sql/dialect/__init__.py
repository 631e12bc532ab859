"""The differences between SQL systems."""
