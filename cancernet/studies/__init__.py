"""Studies made of many runs: they stand on top of the command line."""
