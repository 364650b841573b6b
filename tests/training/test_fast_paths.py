"""Fast paths give the numbers of the slow ones: what is compared here differs in speed only."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, seed_everything
from torch import Tensor, nn

from cancernet.data.datamodule import IDCDataModule
from cancernet.model.fused.layers import Dropout
from cancernet.model.fused.spatial import _HalvingMaximum
from cancernet.training.acceleration import compile_network
from cancernet.training.optimization import OptimizerSettings
from cancernet.training.task import ClassificationTask
from scripts.benchmarks.step import build_handwritten
from tests.model.agreement import cancernet
from tests.training.quiet import quiet_trainer

ROOT = Path(__file__).parents[2]
SIZE = 18
"""18 -> 9 -> 4 -> 2: both an even and an odd size are pooled."""


def draw_batch(count: int = 64, size: int = SIZE) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 3, 3, generator=random)
    image = F.interpolate(coarse, (size, size), mode="bilinear") * 0.8
    return image + 0.2 * torch.rand(count, 3, size, size, generator=random), torch.arange(count) % 2


def one_step(network: nn.Module, bf16: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Return the logits of a training step, its loss, and the gradients and statistics that it leaves."""
    image, label = draw_batch()
    torch.manual_seed(seed)
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = network(image.to(next(network.parameters()).dtype))
        loss = F.cross_entropy(logits.float() if bf16 else logits, label)
    loss.backward()
    gradients = {f"gradient of {name}": p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    values = {"logits": logits.detach(), "loss": loss.detach(), **gradients, **statistics}
    return {name: value.double() for name, value in values.items()}


def distance(fused: Tensor, reference: Tensor) -> float:
    return float((fused - reference).norm() / reference.norm().clamp(min=1e-3))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    seed_everything(0)
    return cancernet(SIZE).train()


def test_compiled_step_is_the_eager_one_dropout_included(network):
    eager, compiled = copy.deepcopy(network), copy.deepcopy(network)
    torch._dynamo.reset()
    compile_network(compiled, torch.device("cpu"))
    results = [one_step(eager), one_step(compiled)]
    # Against double precision, as both round differently: torch's channels-last batch norm adds up in plain single
    # precision, and backwards through seven of them that becomes up to a percent of the first kernels' gradients.
    exact = one_step(copy.deepcopy(network).double())
    for found in results:
        assert list(found) == list(exact)
        for name, value in exact.items():
            assert distance(found[name], value) < (0.02 if name.startswith("gradient") else 1e-4), name
    assert list(compiled.state_dict()) == list(eager.state_dict())


def test_bf16_step_is_the_fp32_one_as_near_as_the_handwritten_network_gets(network):
    """Its precision is that of the same network in torch alone under the same autocast: 8 bits, before batch norms."""
    handwritten = build_handwritten(SIZE).train()
    copy_weights(network, handwritten)
    errors = []
    for module in (copy.deepcopy(network), handwritten):
        for layer in module.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # the two draw other numbers
        single, half = one_step(copy.deepcopy(module)), one_step(copy.deepcopy(module), bf16=True)
        gradients = [
            torch.cat([value.flatten() for name, value in values.items() if name.startswith("gradient")])
            for values in (half, single)
        ]
        assert distance(half["logits"], single["logits"]) < 0.15
        assert abs(half["loss"] - single["loss"]) < 0.05
        assert F.cosine_similarity(*gradients, dim=0) > 0.7
        errors.append(distance(*gradients))
    assert errors[0] < 1.1 * errors[1]


class Witness(Callback):
    """Keeps each batch as the network gets it."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append({name: batch[name].clone() for name in ("image", "label", "index")})

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.on_train_batch_start(trainer, pl_module, batch, batch_idx)


@pytest.mark.parametrize("augmentation", [["original"], ["symmetries", "rotation", "stain_jitter"]])
def test_resident_store_trains_as_the_streamed_one(store, augmentation):
    runs = []
    for resident in ("never", "always"):
        seed_everything(0)
        task, witness = ClassificationTask(optimizer=OptimizerSettings("adagrad", lr=0.01)), Witness()
        data = IDCDataModule(str(store.path), batch_size=48, augmentation=augmentation, device_resident=resident)
        trainer = quiet_trainer(max_epochs=1, callbacks=[witness])
        trainer.fit(task, datamodule=data)
        assert ("image" in next(iter(data.train_dataloader()))) == (resident == "never")
        runs.append((witness.batches, task.network.state_dict()))
    (streamed, weights), (resident_batches, resident_weights) = runs
    assert len(streamed) == len(resident_batches) > 3
    for one, other in zip(streamed, resident_batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert other["image"].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, resident_weights[name]) for name, value in weights.items())


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 5, 9, 6), (1, 4, 7, 7), (3, 1, 2, 3)])
def test_pooling_for_compiled_code_is_torch_own_ties_included(shape):
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 3, shape, generator=random).float()  # three values: nearly every square has a tie
    weight = torch.rand(*shape[:2], shape[2] // 2, shape[3] // 2, generator=random)
    results: list[tuple[Tensor, ...]] = []
    pools: list[Callable[[Tensor], Tensor]] = [lambda x: F.max_pool2d(x, 2), _HalvingMaximum.apply]
    for pool in pools:
        x = image.clone().requires_grad_()
        y = pool(x)
        y.backward(weight)
        results.append((y.detach(), x.grad))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("rate", [0.25, 0.5])
@pytest.mark.parametrize("shape", [(500, 16, 9, 9), (4001, 33)])
def test_dropout_keeps_the_share_and_the_mean_and_follows_the_generator(rate, shape):
    dropout = Dropout(rate).train()
    image = torch.ones(shape).requires_grad_()
    torch.manual_seed(1)
    output = dropout(image)
    output.sum().backward()
    assert torch.equal(image.grad, output.detach())
    assert output.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
    # Five standard deviations of a mean of independent draws, of the whole and along each axis.
    deviation = (rate * (1 - rate)) ** 0.5
    dropped = (output == 0).double()
    for axis in range(len(shape)):
        share = dropped.movedim(axis, 0).flatten(1).mean(1)
        assert (share - rate).abs().max() < 5 * deviation / (dropped.numel() / shape[axis]) ** 0.5
    flat = dropped.permute(0, 2, 3, 1).flatten() if len(shape) == 4 else dropped.flatten()
    for step in (1, 7, 8):  # bytes of one random number, and of the next
        both = (flat[step:] * flat[:-step]).mean()
        assert abs(both - rate**2) < 5 * rate / flat.numel() ** 0.5
    torch.manual_seed(1)
    assert torch.equal(dropout(image), output)
    assert torch.equal(dropout.eval()(image), image)


def test_dropout_of_another_rate_is_torch_own():
    image = torch.ones(50, 50)
    for rate in (0.0, 0.1, 1.0):
        torch.manual_seed(0)
        result = Dropout(rate)(image)
        torch.manual_seed(0)
        assert torch.equal(result, F.dropout(image, rate))


@pytest.mark.skipif(sys.platform != "linux", reason="only there memory is kept")
def test_freed_memory_is_not_asked_for_again():
    # In a process of its own: how earlier tests left the heap decides where the next block comes from.
    code = """
import resource, torch
from cancernet.training.acceleration import keep_freed_memory
keep_freed_memory()
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    # The heap has settled after a few blocks.
    assert max(map(int, done.stdout.split()[-4:])) < 2**24 * 4 / 4096 / 10


def test_handwritten_network_of_the_benchmark_is_the_same_network():
    """What the benchmark compares must compute the same, or its ratios mean nothing."""
    fused, reference = cancernet(SIZE).eval(), build_handwritten(SIZE).eval()
    assert sum(p.numel() for p in reference.parameters()) == sum(p.numel() for p in fused.parameters())
    copy_weights(fused, reference)
    image = draw_batch()[0]
    torch.testing.assert_close(reference(image), fused(image), atol=1e-5, rtol=1e-4)


def copy_weights(fused: nn.Module, reference: nn.Sequential) -> None:
    """Give the hand-written network the same weights; both list theirs from the image to the head."""
    weights = fused.parameters()
    with torch.no_grad():
        for layer in reference:
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
                layer.weight.copy_(_torch_order(next(weights), layer))
                if layer.bias is not None:
                    layer.bias.copy_(next(weights))


def _torch_order(kernel: Tensor, layer: nn.Module) -> Tensor:
    """Turn Keras' order of a kernel into torch's; what the first dense layer reads, Keras has channels-last."""
    if isinstance(layer, nn.Conv2d):
        return kernel.permute(2, 3, 0, 1) if layer.groups > 1 else kernel.permute(3, 2, 0, 1)
    if isinstance(layer, nn.Linear) and layer.in_features == 512:
        return kernel.view(2, 2, 128, -1).permute(3, 2, 0, 1).flatten(1)
    return kernel.t() if isinstance(layer, nn.Linear) else kernel
