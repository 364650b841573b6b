"""Training and inference steps in torch: ours, and the hand-written network. Run by `rounds`.

Arguments: `ours` or `handwritten`, and `kept` where the process keeps the memory that it frees, as ours does. Both do
forward, weighted loss, backward and the update of Adagrad.
"""

import sys
from collections.abc import Callable
from typing import Any

from cancernet.benchmark.turns import serve, timed
from cancernet.model.backend import require_torch_backend

require_torch_backend()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from cancernet.benchmark.handwritten import build_handwritten, difference  # noqa: E402

Step = Callable[[], Any]


def device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(kind: str, compiled: bool, name: str) -> nn.Module:
    """Build a network as the one or the other is used in practice, on the device; ours by its name."""
    if kind == "handwritten":
        network: nn.Module = build_handwritten().to(device())
        if compiled:
            network.compile(fullgraph=True)
        return network
    from cancernet.model.registry import create_network
    from cancernet.training.acceleration import compile_network

    network = create_network(name, {}, 50, 2).to(device())
    if compiled:
        compile_network(network, device())
    return network


def patches(batch: int) -> Tensor:
    """Draw images (batch, 3, 50, 50) float in [0, 1], channels-last."""
    return torch.rand(batch, 3, 50, 50, device=device()).contiguous(memory_format=torch.channels_last)


def training_step(kind: str, batch: int, compiled: bool, bf16: bool, name: str) -> Step:
    """Return a function that makes one training step on a fixed batch."""
    network = build(kind, compiled, name).train()
    image = patches(batch)
    label = (torch.rand(batch, device=device()) < 0.3).float()
    weight = torch.where(label > 0, 2.52, 1.0)
    optimizer = torch.optim.Adagrad(network.parameters(), lr=1e-2, lr_decay=2.5e-4, eps=1e-7)

    def step() -> None:
        with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            logit = difference(network(image))
            loss = F.binary_cross_entropy_with_logits(logit, label, weight)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        _finish()

    return step


def inference_step(kind: str, batch: int, compiled: bool, bf16: bool, name: str) -> Step:
    """Return a function that gives the probabilities of a fixed batch."""
    network = build(kind, compiled, name).eval()
    image = patches(batch)

    def step() -> None:
        with torch.inference_mode(), torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            torch.sigmoid(difference(network(image)))
        _finish()

    return step


def _finish() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def main(kind: str, kept: bool) -> None:
    """Answer turns."""
    if kept and device().type == "cpu":
        from cancernet.training.acceleration import keep_freed_memory

        keep_freed_memory()
    steps: dict[tuple[Any, ...], Step] = {}

    def answer(
        task: str, batch: int, compiled: bool, bf16: bool, repeat: int, network: str = "cancernet"
    ) -> dict[str, Any]:
        key = (task, batch, compiled, bf16, network)
        if key not in steps:
            build_step = training_step if task == "train" else inference_step
            # Each code that is compiled belongs to one network and one shape: none may spoil another's.
            torch._dynamo.reset()
            steps[key] = build_step(kind, batch, compiled, bf16, network)
        return timed(steps[key], repeat, batch)

    serve(answer, {"torch": torch.__version__})


if __name__ == "__main__":
    main(sys.argv[1], "kept" in sys.argv[2:])
