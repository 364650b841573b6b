"""Runs in processes of their own: what they leave, how they end, and what goes on after an interruption."""

import sys
import threading
import time

import psutil
import pytest
import torch

from cancernet import __version__
from cancernet.errors import InputError
from cancernet.files import write_json
from scripts.studies import engines, repeat, trials
from scripts.studies.apart import __file__ as apart
from scripts.studies.apart import run_apart
from scripts.studies.trials import Job, Trial

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_command_apart_adds_what_it_prints_to_its_log(tmp_path):
    log = tmp_path / "output.txt"
    log.write_text("before\n")
    run_apart(["--version"], log, wanted=lambda: True)
    before, command, printed = log.read_text().splitlines()
    assert (before, printed) == ("before", f"cancernet {__version__}")
    assert command.endswith("-m cancernet --version")


def test_a_command_that_fails_apart_is_told_by_its_last_line(tmp_path):
    with pytest.raises(InputError, match=r"`cancernet nosuch` ended with status 2 \(cancernet: error: unknown command"):
        run_apart(["nosuch"], tmp_path / "output.txt", wanted=lambda: True)


def test_a_command_that_is_no_longer_wanted_ends(tmp_path):
    with pytest.raises(InputError, match="`cancernet fit` ended with status 143"):
        run_apart(["fit"], tmp_path / "output.txt", wanted=lambda: False)


def test_a_command_ends_with_the_process_that_wants_it(tmp_path):
    """A pipe's end closes with its process, however that one ended."""
    command = [sys.executable, apart, str(tmp_path / "output.txt"), *SLEEP]
    owner = f"import subprocess, time; subprocess.Popen({command}, stdin=subprocess.PIPE); time.sleep(600)"
    process = psutil.Popen([sys.executable, "-c", owner])
    while len(family := process.children(recursive=True)) < 2:
        assert process.is_running()
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=60)[1] == []


def test_jobs_side_by_side_have_a_gpu_each(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    seen, two = [], threading.Barrier(2)

    def run(arguments, log, wanted, folder, module, **variables):
        seen.append(variables["CUDA_VISIBLE_DEVICES"])
        two.wait()  # so that two run at any time

    monkeypatch.setattr(engines, "run_apart", run)
    jobs = [Job(Trial(seed, tmp_path / str(seed)), []) for seed in range(4)]
    with pytest.raises(InputError, match="fit left no best.ckpt"):
        engines.run_side_by_side(jobs, count=2)
    assert sorted(seen) == ["3", "3", "5", "5"]


def test_a_signal_that_ends_a_serial_run_ends_its_study(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "cancernet", lambda arguments: 130)
    assert repeat.main([str(tmp_path), "--seeds", "0"]) == 130


def prepare_fit(folder, made_with):
    """Leave a checkpoint of a fit that was interrupted."""
    write_json(folder / "options.json", {"options": made_with})
    checkpoints = folder / "lightning_logs" / "version_0" / "checkpoints"
    checkpoints.mkdir(parents=True)
    described = {"network": "cancernet", "classes": 2, "image_size": 50, "calibration": None}
    torch.save({"state_dict": {}, "cancernet": described}, checkpoints / "last.ckpt")
    return checkpoints / "last.ckpt"


@pytest.mark.parametrize("options", [["--model.dropout=0.5"], ["--model.dropout=0.25"]])
def test_an_interrupted_run_of_the_same_options_goes_on_from_its_last_checkpoint(options, tmp_path):
    interrupted = prepare_fit(tmp_path, ["--model.dropout=0.5"])
    ran = []
    with pytest.raises(InputError, match="fit left no best.ckpt"):
        Job(Trial(0, tmp_path), options).complete(ran.append)
    assert (f"--ckpt_path={interrupted}" in ran[0]) == (options == ["--model.dropout=0.5"])


def test_what_a_command_names_is_found_by_a_process_in_another_folder(tmp_path, monkeypatch):
    (tmp_path / "some.yaml").write_text("model: {dropout: 0.5}")
    monkeypatch.chdir(tmp_path)
    job = Job(Trial(0, tmp_path), ["--config=some.yaml"])
    monkeypatch.chdir("/")
    assert job.options == [{"model": {"dropout": 0.5}}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs=0"], "--jobs: expected 1 or more, got 0"),
        (["--jobs=2", "--scheduler=tcp://127.0.0.1:1"], "give one of them"),
        (["--scheduler=tcp://127.0.0.1:1"], "--scheduler tcp://127.0.0.1:1: no answer"),
        (["--scheduler=nosuch://127.0.0.1:1"], "--scheduler nosuch://127.0.0.1:1: no answer"),
    ],
)
def test_an_engine_that_cannot_be_had_is_named(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "CONNECTING", 0.1)
    assert repeat.main([str(tmp_path), "--seeds", "0", *options]) == 2
    assert words in capsys.readouterr().err
