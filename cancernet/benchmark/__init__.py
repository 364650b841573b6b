"""Measurements of speed and memory, side by side; `scripts/benchmark` runs them. No part of a training run."""
