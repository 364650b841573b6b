"""From the archive as downloaded to patches in memory. Imports neither the model nor the evaluation."""
