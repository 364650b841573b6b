"""A network of the user's own in CancerNet's place, all the way through the command line; and what is never run."""

import json
from pathlib import Path

import pytest
import torch

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.model.registry import create_network
from cancernet.training.task import ClassificationTask

NAME = "tests.model.networks.build"
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
pytestmark = pytest.mark.filterwarnings("ignore:Runs through Keras")


@pytest.fixture(scope="module")
def run_folder(archive, cache, tmp_path_factory) -> Path:
    """One epoch of a network with slow layers, its weights averaged, that is: copied."""
    root = tmp_path_factory.mktemp("own")
    arguments = [
        "--config=configs/cancernet.yaml",
        f"--data.root={archive}",
        f"--data.cache={cache}",
        "--data.batch_size=32",
        f"--model.network={NAME}",
        "--model.network_arguments.filters=6",
        "--model.image_size=24",
        "--trainer.max_epochs=1",
        "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={root}",
    ]
    assert main(["fit", *arguments, *QUIET]) == 0
    return root / "lightning_logs" / "version_0"


@pytest.fixture
def checkpoint(run_folder) -> Path:
    return run_folder / "checkpoints" / "best.ckpt"


def test_it_was_trained_and_calibrated(checkpoint):
    content = read_checkpoint(checkpoint)
    assert content["cancernet"]["network"] == NAME
    assert content["cancernet"]["network_arguments"] == {"filters": 6}
    assert content["cancernet"]["calibration"]["temperature"] > 0
    fresh = create_network(NAME, {"filters": 6}, 24, 2).state_dict()
    moved = [name for name, value in fresh.items() if not torch.equal(content["state_dict"][f"network.{name}"], value)]
    assert len(moved) == len(fresh)


def test_it_is_evaluated_where_the_user_names_it(run_folder, checkpoint):
    assert main(["test", f"--ckpt_path={checkpoint}", f"--model.network={NAME}", *QUIET]) == 0
    assert json.loads((run_folder / "metrics.json").read_text())["network"] == NAME
    assert "networks.build" in (run_folder / "report.html").read_text()
    assert "networks.build" in (run_folder / "model_card.md").read_text()
    assert main(["calibrate", str(checkpoint), "--network", NAME]) == 0


def test_it_starts_another_run(checkpoint):
    arguments = {"network": NAME, "network_arguments": {"filters": 6}, "image_size": 24}
    task = ClassificationTask(**arguments, weights=str(checkpoint))
    content = read_checkpoint(checkpoint)
    for name, value in task.network.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"network.{name}"]), name
    with pytest.raises(InputError, match="network_arguments {'filters': 6}, this one {}"):
        ClassificationTask(network=NAME, image_size=24, weights=str(checkpoint))
    with pytest.raises(InputError, match="only CancerNet starts from a file of Keras'"):
        ClassificationTask(network="compact", weights="weights.h5")


def hostile(checkpoint: Path, folder: Path, network: str, arguments: dict) -> Path:
    content = read_checkpoint(checkpoint, mapped=False)
    content["cancernet"] |= {"network": network, "network_arguments": arguments}
    path = folder / "hostile.ckpt"
    torch.save(content, path)
    return path


COMMANDS = {
    "test": ["--ckpt_path={}"],
    "validate": ["--ckpt_path", "{}"],
    "predict": ["--ckpt_path={}"],
    "calibrate": ["{}"],
    "export": ["{}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_that_a_checkpoint_names_is_run(command, checkpoint, tmp_path, capsys):
    made = tmp_path / "made"
    file = hostile(checkpoint, tmp_path, "os.mkdir", {"path": str(made)})
    arguments = [part.format(file) for part in COMMANDS[command]]
    assert main([command, *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cancernet: ")]
    assert len(lines) == 1
    option = "--network" if command in ("calibrate", "export") else "--model.network"
    assert lines[0].endswith(f"name it yourself: {option} os.mkdir")
    assert main([command, *arguments, option, "compact"]) == 2
    assert "has network 'os.mkdir', this one 'compact'" in capsys.readouterr().err
    assert not made.exists()


def test_what_the_user_names_is_run(tmp_path):
    """Or the test above could not fail."""
    with pytest.raises(InputError, match="returns NoneType"):
        create_network("os.mkdir", {"path": str(tmp_path / "made")}, 50, 2)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("command", ["test", "calibrate"])
def test_no_class_hides_in_recorded_arguments(command, as_text, checkpoint, tmp_path, capsys):
    made = tmp_path / "made"
    entry = {"class_path": "subprocess.Popen", "init_args": {"args": ["mkdir", str(made)]}}
    arguments = {"alpha": json.dumps(entry) if as_text else entry}
    file = hostile(checkpoint, tmp_path, "keras.applications.MobileNetV2", arguments)
    where = [f"--ckpt_path={file}", *QUIET] if command == "test" else [str(file)]
    assert main([command, *where]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not made.exists()


def test_a_checkpoint_of_before_has_no_arguments(tmp_path):
    task = ClassificationTask()
    content = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    del content["cancernet"]["network_arguments"]
    task.on_load_checkpoint(content)
    with pytest.raises(InputError, match="network_arguments {}, this one {'width': 50}"):
        ClassificationTask(network_arguments={"width": 50}).on_load_checkpoint(content)
