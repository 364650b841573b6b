"""Weights from elsewhere, all the way through the command line."""

import json

import keras
import pytest
import torch

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.data.training_record import TrainingRecord
from cancernet.errors import InputError
from cancernet.model.network import CancerNet
from cancernet.training.checkpoints import data_state
from cancernet.training.task import ClassificationTask
from cancernet.training.weights import start_from

pytestmark = pytest.mark.filterwarnings("ignore:This model's weights came from elsewhere")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A Keras model of 48 pixels and its file."""
    path = tmp_path_factory.mktemp("reference") / "reference.keras"
    keras.utils.set_random_seed(3)
    model = CancerNet.build(48, 48)
    model.save(path)
    return model, path


@pytest.fixture(scope="module")
def converted(reference, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "reference.ckpt"
    assert main(["convert", str(reference[1]), str(path)]) == 0
    return path


def quietly(archive, cache, folder):
    return [
        f"--data.root={archive}",
        f"--data.cache={cache}",
        f"--trainer.default_root_dir={folder}",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]


def evaluated(converted, archive, cache):
    return [
        f"--ckpt_path={converted}",
        f"--data.root={archive}",
        f"--data.cache={cache}",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


def test_a_converted_checkpoint_tests_and_says_what_nobody_knows(converted, archive, cache):
    with pytest.warns(UserWarning, match="nobody knows which cases"):
        assert main(["test", *evaluated(converted, archive, cache)]) == 0
    folder = converted.parent / "test-colours"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["exposure_known"] is False
    assert metrics["leak_proof"] is None
    assert "unknown which cases trained" in (folder / "report.html").read_text()
    assert "unknown which cases trained" in (folder / "model_card.md").read_text()


def test_it_predicts(converted, archive, cache):
    assert main(["predict", *evaluated(converted, archive, cache)]) == 0
    assert (converted.parent / "predict-colours" / "predictions.csv").is_file()


def test_it_goes_on_training(converted, archive, cache, tmp_path):
    arguments = [f"--ckpt_path={converted}", "--model.image_size=48", *quietly(archive, cache, tmp_path)]
    assert main(["fit", *arguments]) == 0
    trained = read_checkpoint(next(tmp_path.rglob("last.ckpt")))
    assert trained["epoch"] == 0
    assert trained["global_step"] > 0


def test_fine_tuning_from_a_keras_file_keeps_what_is_unknown(reference, archive, cache, tmp_path):
    with pytest.warns(UserWarning, match="nobody knows which cases"):
        assert main(["fit", f"--model.weights={reference[1]}", *quietly(archive, cache, tmp_path)]) == 0
    exposure = TrainingRecord.from_state(data_state(read_checkpoint(next(tmp_path.rglob("last.ckpt"))))["exposure"])
    assert not exposure.known
    assert exposure.cases["train"], "what it was fine-tuned on is known"


def test_weights_start_the_task(reference, converted):
    for file in (reference[1], converted):
        task = ClassificationTask(weights=str(file))
        kernel = torch.as_tensor(reference[0].get_layer("head_dense").kernel.numpy())
        assert torch.equal(task.network.get_parameter("head_dense.kernel"), kernel)


def test_fine_tuning_from_our_own_checkpoint_remembers_its_cases(converted, tmp_path):
    content = read_checkpoint(converted)
    content["IDCDataModule"]["exposure"] = TrainingRecord.unknown().state() | {"known": True}
    content["IDCDataModule"]["exposure"]["cases"]["train"] = ["7001"]
    torch.save(content, tmp_path / "own.ckpt")
    task = ClassificationTask(weights=str(tmp_path / "own.ckpt"))
    assert TrainingRecord.from_state(task._weights_state["exposure"]).cases["train"] == ["7001"]


@pytest.mark.parametrize(("settings", "words"), [({"classes": 1}, "classes 1"), ({"image_size": 64}, "image_size 48")])
def test_another_network_is_refused_with_the_way_out(converted, settings, words):
    with pytest.raises(InputError, match=words.replace("classes 1", "--model.classes 2")):
        ClassificationTask(weights=str(converted), **settings)


def test_nothing_is_overwritten_and_names_are_checked(reference, converted, tmp_path, capsys):
    assert main(["convert", str(reference[1]), str(converted)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(reference[1]), str(tmp_path / "x.keras")]) == 2
    assert ".ckpt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_a_keras_file_has_seen_is_unknown(reference):
    network = ClassificationTask(image_size=48).network
    state = start_from(network, str(reference[1]), {"network": "cancernet", "classes": 2, "image_size": 48})
    assert state["exposure"]["known"] is False
