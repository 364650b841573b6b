"""The networks: Keras definitions, their fused execution on torch, and weight files that Keras wrote."""

from cancernet.model.backend import avoid_missing_tensorflow

# Before any module of this package imports Keras, which chooses its backend once.
avoid_missing_tensorflow()
