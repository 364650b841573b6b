"""CancerNet on the IDC breast histology archive: a Keras network, trained by Lightning. Research, not diagnosis.

Importing the package imports neither Keras nor torch nor NumPy, so that light commands stay light.
``from cancernet import CancerNet`` loads the Keras definition on first use and needs nothing but Keras.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cancernet.model.network import CancerNet

__version__ = "0.1.0"

__all__ = ["CancerNet", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the network on first use (PEP 562)."""
    if name == "CancerNet":
        from cancernet.model.network import CancerNet

        return CancerNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
