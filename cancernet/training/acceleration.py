"""What makes a step faster and changes no number: memory that is kept, and compiled code."""

import ctypes
import shutil
import sys
from typing import TYPE_CHECKING

import torch

from cancernet.errors import InputError
from cancernet.model.fused.network import TorchNetwork

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h


def refuse_batch_norm_sync(strategy: "Strategy") -> None:
    """Refuse to synchronise batch norm on the CPU, which torch cannot do.

    Raises:
        InputError: It was asked for.
    """
    # Lightning has no public name for it, and DDP would refuse with a traceback later.
    if getattr(strategy, "_layer_sync", None) is not None:
        raise InputError("trainer.sync_batchnorm: torch synchronises batch norm on GPUs only; leave it out on the CPU")


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for the next step (Linux with glibc; nothing happens elsewhere).

    A step takes and frees some hundred tensors of up to a hundred megabytes. glibc gives each back to the system at
    once, and the system fills each new one with zeros, page by page: a third of the time of a training step on the CPU.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)


def compile_network(network: TorchNetwork, device: torch.device, mode: str | None = None) -> None:
    """Let torch compile a network at its first call, or say why not.

    Args:
        network: Compiled in place; its `state_dict` keeps its keys.
        device: Where it will run.
        mode: As `torch.compile` takes it; "reduce-overhead" replays CUDA graphs. None for torch's default.
    """
    from lightning.pytorch.utilities import rank_zero_warn  # which `map` does without, and takes seconds

    whole = not network.keras_calls
    if device.type != "cpu":
        network.compile(fullgraph=whole, mode=mode)
    elif not any(map(shutil.which, ("c++", "g++", "clang++"))):
        rank_zero_warn("model.compile: no C++ compiler found, so the network runs uncompiled")
    else:
        # Random numbers drawn inside generated code keep all that is fused with them from using vector instructions;
        # torch's own generator is quicker, and the same numbers come with and without compiling.
        network.compile(fullgraph=whole, options={"fallback_random": True})
