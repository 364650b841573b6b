"""Two nodes, as two network namespaces: they train what one node trains, and end when they lose each other."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from cancernet.checkpoints import read_checkpoint
from tests.faults.privileged import run_or_skip

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
PATIENCE = 600
"""Seconds for what takes some on an idle machine."""
CUT = 180
"""Seconds within which a job whose network was cut has to end: 90 of waiting, and what a busy machine adds."""
REASON = "cannot be reached"


def ip(*arguments: str) -> None:
    run_or_skip("ip", *arguments, otherwise="no network namespaces can be made here")


@dataclass
class Node:
    """A network namespace with one end of a cable."""

    rank: int
    namespace: str
    interface: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def connect(self) -> None:
        for arguments in (
            ["addr", "add", f"10.77.0.{self.rank + 1}/24", "dev", self.interface],
            ["link", "set", self.interface, "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", self.namespace, *arguments)

    def cut(self) -> None:
        ip("-n", self.namespace, "link", "set", self.interface, "down")

    def start(self, command: str, *options: str) -> subprocess.Popen[str]:
        variables = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29400", "NODE_RANK": str(self.rank)}
        nodes = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp"]
        prefix = ["ip", "netns", "exec", self.namespace]
        process = start(prefix, command, *options, *nodes, GLOO_SOCKET_IFNAME=self.interface, **variables)
        self.processes.append(process)
        return process


def start(prefix: list[str], command: str, *options: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "cancernet", command, *options, *QUIET],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, output


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    pair = [Node(rank, f"cancernet-{os.getpid()}-{rank}", f"cable{rank}") for rank in range(2)]
    try:
        for node in pair:
            ip("netns", "add", node.namespace)
        ends = [part for node in pair for part in (node.interface, "netns", node.namespace)]
        ip("link", "add", *ends[:3], "type", "veth", "peer", "name", *ends[3:])
        for node in pair:
            node.connect()
        yield pair
    finally:
        for node in pair:
            for process in node.processes:
                process.kill()
            subprocess.run(["ip", "netns", "del", node.namespace], capture_output=True, check=False)


@pytest.fixture
def data(archive, cache) -> list[str]:
    return [f"--data.root={archive}", f"--data.cache={cache}", "--data.batch_size=32"]


def test_two_nodes_train_and_test_as_two_processes_of_one_node_do(nodes, data, tmp_path):
    folders = [tmp_path / name for name in ("nodes", "processes")]
    options = [*data, "--trainer.max_epochs=2"]
    finish(*[node.start("fit", *options, f"--trainer.default_root_dir={folders[0]}") for node in nodes])
    alone = ["--trainer.devices=2", "--trainer.strategy=ddp", f"--trainer.default_root_dir={folders[1]}"]
    finish(start([], "fit", *options, *alone))
    runs = [folder / "lightning_logs" / "version_0" for folder in folders]
    checkpoints = [run / "checkpoints" / "last.ckpt" for run in runs]
    weights = [read_checkpoint(checkpoint)["state_dict"] for checkpoint in checkpoints]
    assert weights[0].keys() == weights[1].keys()
    assert [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])] == []
    finish(*[node.start("test", f"--ckpt_path={checkpoints[0]}") for node in nodes])
    finish(start([], "test", f"--ckpt_path={checkpoints[1]}"))
    metrics = [json.loads((run / "metrics.json").read_text()) for run in runs]
    for tested in metrics:
        del tested["environment"], tested["sha256"]["metrics.json"]  # these tell the time of the test
    assert metrics[0] == metrics[1]


def start_endless(nodes: list[Node], data: list[str], folder: Path) -> list[subprocess.Popen[str]]:
    """Start a fit on both nodes and wait until it has trained for some epochs."""
    options = [*data, "--trainer.max_epochs=100000", f"--trainer.default_root_dir={folder}"]
    running = [node.start("fit", *options) for node in nodes]
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob("lightning_logs/*/checkpoints/last.ckpt")):
        assert [process.poll() for process in running] == [None, None]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return running


def the_one_line(process: subprocess.Popen[str], seconds: float) -> str:
    """Return the line that a process ends with; it prints no traceback."""
    output = process.communicate(timeout=seconds)[0]
    assert process.returncode not in (0, None)
    assert "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if line.startswith("cancernet: error:")]
    assert REASON in line
    assert "--ckpt_path" in line
    return line


def test_a_cut_link_ends_the_job_on_both_nodes(nodes, data, tmp_path):
    running = start_endless(nodes, data, tmp_path)
    nodes[1].cut()
    deadline = time.monotonic() + CUT
    for process in running:
        the_one_line(process, deadline - time.monotonic())


def test_a_dead_process_ends_the_other_with_one_line(nodes, data, tmp_path):
    running = start_endless(nodes, data, tmp_path)
    running[1].send_signal(signal.SIGKILL)
    running[1].communicate()
    the_one_line(running[0], CUT)
