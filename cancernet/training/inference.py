"""The logit of IDC, as training and use take it from a network, and a checkpoint's network in use without Lightning."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cancernet.data.augment import symmetries
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.registry import create_network
from cancernet.training.checkpoints import require_same_weights, trusted_network_config


def idc_logit(network: TorchNetwork, image: Tensor, size: int) -> Tensor:
    """Return the logit of IDC.

    Args:
        network: With one output or two.
        image: (B, 3, H, W) float in [0, 1].
        size: Side in pixels that the network takes; images of another one are resized.

    Returns:
        (B,) float32 (float64 in double precision); with two units z1 - z0, so that the probability is its sigmoid
        either way.
    """
    if image.shape[-1] != size:
        image = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
    logits = network(image)
    if logits.dtype != torch.float64:
        logits = logits.float()
    # The copy: a replayed CUDA graph writes its next output over this one.
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0].clone()


def averaged_logit(run: Callable[[Tensor], Tensor], image: Tensor, tta: bool) -> Tensor:
    """Return what `run` gives for an image (B, 3, H, W): with test-time augmentation the mean over eight symmetries.

    >>> averaged_logit(lambda image: image[:, 0, 0, 0], torch.arange(4.0).reshape(1, 1, 2, 2), tta=True)
    tensor([1.5000])
    """
    return torch.stack([run(turned) for turned in symmetries(image)]).mean(dim=0) if tta else run(image)


class TrainedNetwork(nn.Module):
    """The network of a checkpoint, in evaluation; its weights bear the names that they have in the checkpoint.

    Args:
        checkpoint: Its content.
        named: The network that the user named (see `trusted_network_config`).

    Attributes:
        name: Of the network, as `create_network` takes it.
        network: The network itself.
        image_size: Side in pixels that it takes.
        tta: Whether its logit is the mean over the eight symmetries of the square.

    Raises:
        InputError: A network that only the user may name, or weights of another one.
    """

    def __init__(self, checkpoint: Mapping[str, Any], named: str | None = None) -> None:
        super().__init__()
        config = trusted_network_config(checkpoint, named, "network=")
        self.name: str = config["network"]
        self.image_size: int = config["image_size"]
        self.tta: bool = config["tta"]
        self.network = create_network(self.name, config["network_arguments"], self.image_size, config["classes"])
        require_same_weights(checkpoint["state_dict"], self.state_dict())
        self.load_state_dict(checkpoint["state_dict"])
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return the logit of IDC (B,) of images (B, 3, H, W), float in [0, 1]."""
        return averaged_logit(lambda turned: idc_logit(self.network, turned, self.image_size), image, self.tta)
