"""Against the real other side, where CANCERNET_INTEROP names a Python with TensorFlow: see scripts/interop."""

import json
import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras.src.backend.common import dtypes

from cancernet.export import command
from cancernet.export.check import BACKENDS, run_elsewhere
from cancernet.export.command import export
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.keras_files.weights import load_weights, read_weights
from cancernet.model.network import CancerNet
from tests.export.test_export import TEMPERATURE, probabilities, write_checkpoint
from tests.model.agreement import cancernet
from tests.training import test_original as original

PYTHON = os.environ.get("CANCERNET_INTEROP", "")
CHECKOUT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not PYTHON, reason="needs TensorFlow in an environment of its own: scripts/interop")


def run(*arguments, **environment):
    done = subprocess.run(
        [PYTHON, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_file_that_tf_keras_and_keras_write(tmp_path):
    run(Path(__file__).with_name("other_side.py"), "write", tmp_path)
    cases = json.loads((tmp_path / "cases.json").read_text())
    assert len(cases) == 21
    for case in cases:
        path = tmp_path / case["file"]
        saved = np.load(path.with_suffix(".npz"))
        weights = read_weights(path, case["size"] if "weights" in path.name else None)
        network = cancernet(case["size"], case["classes"])
        load_weights(network, weights)
        with torch.no_grad():
            logits = network.eval()(torch.from_numpy(saved["image"]).permute(0, 3, 1, 2))
        found = torch.softmax(logits, dim=1) if case["classes"] == 2 else torch.sigmoid(logits)
        difference = np.abs(found.numpy() - saved["probability"]).max()
        print(f"{case['file']}: {difference:.1e}")
        assert difference < 1e-5, case["file"]


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize(("form", "suffix"), [("keras", ".keras"), ("weights", ".weights.h5")])
def test_exports_open_under_other_backends(tmp_path, monkeypatch, form, suffix, backend):
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    patches = np.random.default_rng(0).integers(0, 256, (16, 50, 50, 3), dtype=np.uint8)
    monkeypatch.setattr(command, "_synthetic_patches", lambda count: patches)

    def check(form, file, patches, expected):
        return [run_elsewhere(form, file, patches, expected, backend=backend, python=PYTHON)]

    monkeypatch.setattr(command, "check", check)
    monkeypatch.setattr(command, "TOLERANCE", 1e-6)
    export(checkpoint, form, tmp_path / f"model{suffix}")
    assert probabilities(checkpoint, patches, TEMPERATURE).shape == (16,)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_tutorial_script_runs_without_torch(backend):
    script = """
import sys, numpy as np
from cancernet.cancernet import CancerNet
from cancernet import CancerNet as same
import keras
assert same is CancerNet
model = CancerNet.build(width=48, height=48, depth=3, classes=2)
model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adagrad(1e-2), metrics=["accuracy"])
model.fit(np.random.rand(8, 48, 48, 3), np.eye(2)[[0, 1] * 4], batch_size=4, epochs=1, verbose=0)
print(keras.config.backend(), "torch" in sys.modules)
"""
    assert run("-c", script, KERAS_BACKEND=backend, PYTHONPATH=str(CHECKOUT)).split() == [backend, "False"]


def test_fifty_steps_of_the_2020_recipe_in_tf_keras_itself(tmp_path, monkeypatch):
    monkeypatch.delitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", raising=False)
    # tf.keras keeps learning rate and decay in single precision for weights of any type.
    monkeypatch.setattr(original, "RATE", float(np.float32(original.RATE)))
    monkeypatch.setattr(original, "DECAY", float(np.float32(original.DECAY)))
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        keras.utils.set_random_seed(0)
        model = CancerNet.build(original.SIZE, original.SIZE)
        image, label = original.draw_batches()
        initial = {f"weight{i}": weight for i, weight in enumerate(model.get_weights())}
        np.savez(
            tmp_path / "task.npz",
            image=image.reshape(-1, *image.shape[2:]).astype(np.float64),
            label=label.reshape(-1),
            batch=original.BATCH,
            rate=original.RATE,
            decay=original.DECAY,
            accumulator=original.ACCUMULATOR,
            class_weights=original.CLASS_WEIGHTS,
            **initial,
        )
        run(Path(__file__).with_name("other_side.py"), "train", tmp_path)
        state = {name: value.clone() for name, value in TorchNetwork(model).state_dict().items()}
        trained_here, losses = original.train_ours(image, label, state)
        trained = np.load(tmp_path / "trained.npz")
        model.set_weights([trained[f"weight{i}"] for i in range(len(initial))])
        trained_there = TorchNetwork(model).state_dict()
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    print("losses", np.abs(losses - trained["losses"]).max())
    differences = {
        name: float((value - trained_there[name]).abs().max()) for name, value in trained_here.state_dict().items()
    }
    print("weights and statistics", max(differences.values()))
    # Seen: losses 6e-7, weights 2e-7. TensorFlow keeps the schedule's step count and the like in single precision.
    np.testing.assert_allclose(losses, trained["losses"], atol=1e-5, rtol=0)
    assert max(differences.values()) < 1e-5, differences
