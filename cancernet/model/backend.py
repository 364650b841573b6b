"""Choose the backend of Keras, which Keras itself does once, at its first import.

This module imports neither Keras nor torch: it runs before they are loaded.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from cancernet.errors import InputError


def require_torch_backend() -> None:
    """Make torch the backend of Keras, or refuse where another one is already loaded.

    Raises:
        InputError: Keras was imported before with another backend.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    import keras

    backend = keras.config.backend()
    if backend != "torch":
        raise InputError(
            "Training and the fused network need Keras on torch, but Keras is already imported on "
            f"{backend!r}: set KERAS_BACKEND=torch before the first `import keras`"
        )


def avoid_missing_tensorflow() -> None:
    """Choose torch where Keras would choose TensorFlow by default and TensorFlow is not installed.

    A backend that the user named, in the environment or in ``keras.json``, is never overruled.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND"):
        return
    if _configured_backend() == "tensorflow" and find_spec("tensorflow") is None and find_spec("torch") is not None:
        os.environ["KERAS_BACKEND"] = "torch"


def _configured_backend() -> str:
    """Return the backend in the user's ``keras.json``; Keras writes "tensorflow" there when it is first used."""
    folder = Path(os.environ["KERAS_HOME"]) if "KERAS_HOME" in os.environ else Path.home() / ".keras"
    try:
        return str(json.loads((folder / "keras.json").read_text()).get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"
