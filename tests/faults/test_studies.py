"""Studies whose runs take place side by side or on a cluster: the results of serial ones, and what faults leave."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from scripts.studies import ablate, repeat

QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", *QUICK]
ENDLESS = ["--trainer.max_epochs=100000", *QUICK]
SEEDS = ["--seeds", "0", "1"]
PATIENCE = 600
"""Seconds for what takes some on an idle machine."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on the number of threads: the serial runs have one, as those side by side do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module", autouse=True)
def heeded_interrupt():
    """A suite in a shell's background ignores Ctrl-C, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data(archive, cache, tmp_path_factory) -> list[str]:
    """Options of fit: the archive under one split for every seed."""
    parts = tmp_path_factory.mktemp("split") / "parts.csv"
    names = [str(7000 + number) for number in range(12)]
    pd.DataFrame({"case": names, "part": ["train"] * 6 + ["validation"] * 2 + ["test"] * 4}).to_csv(parts, index=False)
    return [f"--data.root={archive}", f"--data.cache={cache}", f"--data.split={parts}"]


@pytest.fixture(scope="module")
def serial(data, tmp_path_factory) -> pd.DataFrame:
    output = tmp_path_factory.mktemp("serial")
    finish(start(output, [*data, *SHORT]))
    return pd.read_csv(output / "runs.csv")


def start(output: Path, options: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.studies.repeat", str(output), *SEEDS, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == status, output
    return output


def wait_for(found: Callable[[], bool], process: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def logs(output: Path) -> dict[Path, str]:
    return {file: file.read_text() for file in output.glob("seed-*/output.txt")}


def test_runs_side_by_side_are_the_serial_ones_and_are_made_once(serial, data, tmp_path, capsys):
    arguments = [str(tmp_path), *SEEDS, "--jobs", "2", *data, *SHORT]
    assert repeat.main(arguments) == 0
    assert "2/2" in capsys.readouterr().err
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "runs.csv"), serial)
    before = logs(tmp_path)
    assert len(before) == 2
    assert repeat.main(arguments) == 0
    assert logs(tmp_path) == before


def test_variants_run_side_by_side(data, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text("base: {}\nslow: {model: {optimizer: {lr: 1.0e-9}}}\n")
    arguments = ["--variants", str(study), "--seeds", "0", *data, *SHORT]
    tables = []
    for name, jobs in {"serial": "1", "apart": "2"}.items():
        assert ablate.main([str(tmp_path / name), "--jobs", jobs, *arguments]) == 0
        tables.append(pd.read_csv(tmp_path / name / "ablation.csv"))
    pd.testing.assert_frame_equal(*tables)


def test_a_run_that_fails_is_named_and_the_others_come_to_their_end(serial, data, tmp_path, capsys):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "lightning_logs").write_text("a file where the runs belong")
    arguments = [str(tmp_path), *SEEDS, "--jobs", "2", *data, *SHORT]
    assert repeat.main(arguments) == 2
    captured = capsys.readouterr()
    assert f"{tmp_path}/seed-0: failed; the others go on" in captured.err
    assert "`cancernet fit` ended with status" in captured.err.splitlines()[-1]
    (tmp_path / "seed-0" / "lightning_logs").unlink()
    assert repeat.main(arguments) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "runs.csv"), serial)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def checkpoints(output: Path) -> list[Path]:
    return list(output.glob("seed-*/lightning_logs/*/checkpoints/last.ckpt"))


@pytest.mark.parametrize(("killed_by", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_runs_end_with_their_study_and_are_resumed_by_the_next(killed_by, status, data, tmp_path):
    options = ["--jobs", "2", *data, *ENDLESS]
    study = start(tmp_path, options)
    wait_for(lambda: len(checkpoints(tmp_path)) == 2, study)
    children = family(study)
    assert len(children) >= 4
    study.send_signal(killed_by)
    output = finish(study, status)
    assert killed_by == signal.SIGKILL or "ending the runs under way; the same command resumes them" in output
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
    study = start(tmp_path, options)
    wait_for(lambda: all(text.count("--ckpt_path=") == 1 for text in logs(tmp_path).values()), study)
    study.send_signal(signal.SIGINT)
    finish(study, 130)


@pytest.fixture
def cluster(tmp_path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """The address of a scheduler, and its two workers, started by Dask's own command line."""
    file = tmp_path / "scheduler.json"
    where = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    started = [subprocess.Popen([*dask, "scheduler", *where, "--port", "0"], env=environment)]
    try:
        place = ["--nthreads", "1", "--local-directory", str(tmp_path / "workers")]
        started += [subprocess.Popen([*dask, "worker", *where, *place], env=environment, cwd="/") for _ in range(2)]
        wait_for(file.exists, started[0])
        yield pd.read_json(file, typ="series")["address"], [psutil.Process(worker.pid) for worker in started[1:]]
    finally:
        for process in started:
            with suppress(psutil.NoSuchProcess):
                for member in psutil.Process(process.pid).children(recursive=True):
                    member.kill()
            process.kill()
            process.wait()


def test_runs_on_a_cluster_are_the_serial_ones_though_a_worker_is_killed(serial, data, cluster, tmp_path):
    address, workers = cluster
    output = tmp_path / "output"
    options = ["--scheduler", address, *data, *SHORT]
    study = start(output, options)
    wait_for(lambda: len(logs(output)) == 2, study)
    victim = workers[0]
    family = [victim, *victim.children(recursive=True)]
    for process in (victim, *victim.children()):  # Dask's processes; what they started ends by itself
        process.kill()
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
    assert "2/2" in finish(study)
    pd.testing.assert_frame_equal(pd.read_csv(output / "runs.csv"), serial)
    before = logs(output)
    assert sorted(text.count("-m cancernet fit") for text in before.values()) == [1, 2]
    finish(start(output, options))
    assert logs(output) == before


def test_runs_on_a_cluster_end_with_their_study(data, cluster, tmp_path):
    address, workers = cluster
    output = tmp_path / "output"
    study = start(output, ["--scheduler", address, *data, *ENDLESS])
    wait_for(lambda: len(checkpoints(output)) == 2, study)
    runs = [run for worker in workers for run in worker.children(recursive=True) if "fit" in run.cmdline()]
    study.send_signal(signal.SIGINT)
    finish(study, 130)
    assert psutil.wait_procs(runs, timeout=PATIENCE)[1] == []
    assert all(worker.is_running() for worker in workers)
