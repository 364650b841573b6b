"""Judge predictions with NumPy alone: metrics, thresholds, calibration and intervals over whole cases."""
