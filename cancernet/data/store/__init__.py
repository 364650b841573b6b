"""The packed store: every patch decoded once, as one memory map with an index."""
