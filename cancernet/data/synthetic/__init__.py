"""Synthetic slides and archives, to try the whole chain without a download."""
