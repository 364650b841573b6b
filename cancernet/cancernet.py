"""The import path of the 2019 tutorial, so that its readers' scripts run unchanged.

Examples:
    >>> from cancernet.cancernet import CancerNet
    >>> CancerNet.build(width=48, height=48, depth=3, classes=2).output_shape
    (None, 2)
"""

from cancernet.model.network import CancerNet

__all__ = ["CancerNet"]
