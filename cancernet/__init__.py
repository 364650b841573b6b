"""CancerNet on the IDC breast histology archive: a Keras network, trained by Lightning. Research, not diagnosis.

Importing the package imports neither Keras nor torch nor NumPy, so that light commands stay light.
``from cancernet import CancerNet`` loads the Keras definition on first use and needs nothing but Keras;
``cancernet.load("last.ckpt")`` gives a trained model for use on patches, regions and slides.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cancernet.model.network import CancerNet
    from cancernet.slides.predictor import load

__version__ = "0.1.0"

__all__ = ["CancerNet", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the network, or what uses it, on first use (PEP 562)."""
    if name == "CancerNet":
        from cancernet.model.network import CancerNet

        return CancerNet
    if name == "load":
        from cancernet.slides.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
