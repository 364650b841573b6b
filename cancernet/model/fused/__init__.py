"""Run a Keras model as fused torch calls on its own weights.

Importing this package puts Keras on torch, or refuses where Keras already runs on another backend. Modules inside it
import Keras as usual; those outside write ``from cancernet.model.fused import keras``, which cannot come too early.
"""

from cancernet.model.backend import require_torch_backend

require_torch_backend()

import keras  # noqa: E402  (the backend must be chosen before)

__all__ = ["keras"]
