"""Class-activation maps: which parts of an image raise a network's score of IDC, and which lower it."""

import torch
from torch import Tensor, nn

from cancernet.model.fused.network import TorchNetwork

CELLS = 8
"""Least side of a map: later, smaller feature maps say too little of where."""


def class_activation(network: TorchNetwork, image: Tensor) -> Tensor:
    """Compute what each cell of a feature map adds to the log-odds of IDC, to first order.

    Gradient times activation, summed over channels (HiResCAM, Draelos and Carin 2020). Grad-CAM averages the gradient
    over all cells first, which misplaces what a head that weighs each position by itself looks at, as CancerNet's does.
    The feature map is the last one of at least 8 x 8 cells: 12 x 12 in the networks of this project at 50 pixels. A
    cell sees more of the image than the square that it stands for.

    Args:
        network: In evaluation mode.
        image: (B, C, H, W) float, as the network takes it.

    Returns:
        (B, h, w): above 0 what speaks for IDC, below 0 what speaks against it.

    Examples:
        >>> from cancernet.model.registry import create_network
        >>> class_activation(create_network("compact", {}, size=50, classes=2).eval(), torch.zeros(1, 3, 50, 50)).shape
        torch.Size([1, 12, 12])
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) >= CELLS:
            maps.append(output)

    with torch.inference_mode(False), torch.enable_grad():
        # A copy: Lightning evaluates in inference mode, whose tensors have no gradients.
        maps.append(image.clone().to(next(network.parameters())).requires_grad_())
        handles = [child.register_forward_hook(keep) for child in network.children()]
        try:
            logits = network.forward(maps[0])  # not `network(...)`, which may be compiled, without hooks
        finally:
            for handle in handles:
                handle.remove()
        odds = logits[:, -1] - logits[:, 0] if network.classes == 2 else logits[:, 0]
        (gradient,) = torch.autograd.grad(odds.sum(), maps[-1])
        return (gradient * maps[-1]).sum(dim=1).detach()
