"""Evaluate predictions without torch: metrics, thresholds, calibration, intervals over whole cases, run folders."""
