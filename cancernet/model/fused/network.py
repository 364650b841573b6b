"""The fused network: a Keras model as fused torch calls on the Keras model's own weights.

Keras on torch is slow (its batch norm alone is some 15 elementwise operations), ignores `train()` and `eval()`, keeps
statistics as parameters, and hides its layers from code that walks torch modules. `TorchNetwork` traces the built Keras
graph once and gives each layer a small torch module on the layer's memory, so that there is one set of weights.
"""

import random
import warnings
from collections.abc import Callable
from typing import Any, cast

import keras
import torch
from torch import Tensor, nn

from cancernet.errors import InputError
from cancernet.model.fused.batch_norm import BatchNorm, SyncedBatchNorm
from cancernet.model.fused.keras_call import KerasCall, custom_objects
from cancernet.model.fused.tracing import Graph, trace

MOST_NAMED = 5
"""Number of slow layers that a warning names."""


class TorchNetwork(nn.Module):
    """A Keras model as a torch module: images (B, C, H, W), float in [0, 1], to logits (B, classes).

    Each Keras layer is a child module of the same name. A layer that cannot run fused is called through Keras, and a
    warning names it. Parameters are the Keras model's own `Parameter` objects; batch-norm statistics are buffers on the
    memory of the Keras variables. The `state_dict` has stable keys ("block1_conv1.depthwise_kernel",
    "block1_norm1.running_var") and holds each value once. The final softmax or sigmoid is left out.

    Args:
        keras_model: A built functional or Sequential model with one image input and one output. Its variables are
            moved to the CPU.

    Attributes:
        image_shape: (C, H, W) that the network takes; None where any size will do.
        classes: Number of logits.
        output_activation: Activation that was left out: "softmax", "sigmoid" or "linear".

    Raises:
        InputError: The graph cannot run this way.

    Examples:
        >>> from cancernet.model.network import CancerNet
        >>> TorchNetwork(CancerNet.build())(torch.zeros(4, 3, 50, 50)).shape
        torch.Size([4, 2])
    """

    def __init__(self, keras_model: keras.Model) -> None:
        super().__init__()
        graph = trace(keras_model)
        self.image_shape = graph.image_shape
        self.classes = graph.classes
        self.output_activation = graph.output_activation
        self._steps = graph.steps
        self._output = graph.output
        for name, module in graph.modules.items():
            if hasattr(self, name):
                raise InputError(
                    f"Layer name {name!r} is an attribute of torch modules: give the Keras layer another name"
                )
            self.add_module(name, module)
        self._hold(keras_model, graph)
        self._warn_of_slow_layers()
        self.register_load_state_dict_post_hook(_relink_after_loading)

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits of a batch of images (B, C, H, W)."""
        expected = self.image_shape
        if image.dim() != 4 or any(e is not None and e != s for e, s in zip(expected, image.shape[1:], strict=True)):
            raise InputError(f"The network takes images of shape (batch, {expected}). Received: {tuple(image.shape)}")
        values = {0: image.contiguous(memory_format=torch.channels_last)}
        for step in self._steps:
            result = getattr(self, step.module)(*[values[slot] for slot in step.inputs], **step.options)
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                values.update(zip(step.outputs, result, strict=True))
            for slot in step.release:
                del values[slot]
        return values[self._output]

    @property
    def keras_model(self) -> keras.Model:
        """The Keras model, with the present weights. It is no submodule: torch must not find the weights twice."""
        self._relink()
        return self.__dict__["_keras"]

    @property
    def keras_calls(self) -> dict[str, KerasCall]:
        """The layers that run through Keras, by name; empty where the whole network runs fused."""
        return {name: child for name, child in self.named_children() if isinstance(child, KerasCall)}

    def _warn_of_slow_layers(self) -> None:
        slow = [call.reason for call in self.keras_calls.values()]
        if slow:
            more = f"; and {len(slow) - MOST_NAMED} more" if len(slow) > MOST_NAMED else ""
            warnings.warn(f"Runs through Keras, which is slower: {'; '.join(slow[:MOST_NAMED])}{more}", stacklevel=3)

    def _hold(self, keras_model: keras.Model, graph: Graph) -> None:
        # A Keras model is a torch module, which a plain assignment would register as a child.
        self.__dict__["_keras"] = keras_model
        self.__dict__["_variables"] = graph.variables
        for name, call in self.keras_calls.items():
            call.hold(cast(KerasCall, graph.modules[name]).operation)

    def _relink(self) -> None:
        """Point the Keras variables to the tensors of this module that were moved or replaced."""
        for key, variable in self.__dict__["_variables"].items():
            owner, _, name = key.rpartition(".")
            module = self.get_submodule(owner)
            tensor: Tensor = getattr(module, name)
            value: nn.Parameter = variable._value
            if value is tensor:
                continue
            if isinstance(module, KerasCall) and isinstance(tensor, nn.Parameter):
                variable._value = tensor  # Keras computes with it, so the gradient has to arrive there
            elif torch._has_compatible_shallow_copy_type(value, tensor):
                value.data = tensor.data  # the same object: other parts of Keras hold it too
            else:  # to or from the meta device
                variable._value = nn.Parameter(tensor.detach(), requires_grad=value.requires_grad)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TorchNetwork":
        """Move or cast (`to`, `half`, `double`, ...), then update the Keras variables."""
        super()._apply(fn, recurse)
        self._relink()
        return self

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a child; torch's synchronised batch norm is replaced by one that keeps Keras' statistics.

        `torch.nn.SyncBatchNorm.convert_sync_batchnorm`, Lightning's ``sync_batchnorm``, calls this for each child.
        """
        present = self._modules.get(name)
        if isinstance(present, BatchNorm) and isinstance(module, nn.SyncBatchNorm):
            module = SyncedBatchNorm(present, module.process_group)
        super().add_module(name, module)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copying and pickling: the Keras model as its configuration, the weights as torch's."""
        state = {key: value for key, value in self.__dict__.items() if key not in ("_keras", "_variables")}
        model = self.__dict__["_keras"]
        configuration = keras.saving.serialize_keras_object(model)
        state["_configuration"] = {**configuration, "compile_config": None}
        state["_custom"] = custom_objects(
            [*model._flatten_layers(), *(call.operation for call in self.keras_calls.values())]
        )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the Keras model around the weights; all random generators keep their state."""
        state = dict(state)
        configuration, custom = state.pop("_configuration"), state.pop("_custom")
        super().__setstate__(state)
        before = random.getstate()
        with keras.device("cpu"), torch.random.fork_rng(devices=[]):
            # No safe mode: copying or unpickling a network runs its code anyway, that of Lambda layers included.
            model = keras.saving.deserialize_keras_object(configuration, custom_objects=custom, safe_mode=False)
            self._hold(model, trace(model))
        random.setstate(before)
        self._relink()


def _relink_after_loading(network: TorchNetwork, incompatible_keys: object) -> None:
    """Update the Keras variables where loading replaced tensors (``assign=True``) instead of filling them."""
    network._relink()
