"""Run a Keras model as fused torch calls on its own weights."""
