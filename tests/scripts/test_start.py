"""The start commands of scripts/, and the benchmark at its smallest."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from scripts.benchmarks import __main__ as benchmark
from scripts.benchmarks.machine import anonymous_memory, child_environment, describe_machine
from scripts.benchmarks.race import Figure, _cells, write_markdown

SCRIPTS = Path(__file__).parents[2] / "scripts"
WRAPPERS = {
    "benchmark": ("scripts.benchmarks", ["--rounds", "--precisions", "startup"]),
    "repeat": ("scripts.studies.repeat", ["--seeds", "--folds", "--checkpoint", "--part", "--against", "--jobs"]),
    "ablate": ("scripts.studies.ablate", ["--variants", "--only", "--seeds", "--folds", "--scheduler"]),
    "measure_leak": ("scripts.studies.leak", ["--output", "--seeds"]),
    "fit_by_keras": ("scripts.studies.keras_fit", ["--seeds", "--epochs", "--root", "--split", "--cache"]),
    "results": (
        "scripts.studies.results",
        ["--root", "--splits", "--seeds", "--models", "--only", "--jobs", "--scheduler"],
    ),
}


@pytest.mark.parametrize("name", ["python", *WRAPPERS])
def test_start_commands_are_executable_and_explained(name):
    file = SCRIPTS / name
    assert os.access(file, os.X_OK)
    first, second, *_ = file.read_text().splitlines()
    assert first == "#!/usr/bin/env bash"
    assert second.startswith("# ")


@pytest.mark.parametrize("name", WRAPPERS)
def test_each_start_command_runs_its_module_and_lists_its_options(name, capsys):
    module, options = WRAPPERS[name]
    assert f'exec "$(dirname "$0")/python" -m {module} "$@"' in (SCRIPTS / name).read_text()
    program = benchmark if name == "benchmark" else import_module(module)
    with pytest.raises(SystemExit) as done:
        program.main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: scripts/{name}" in text
    assert [option for option in options if option not in text] == []


def test_the_launcher_runs_from_any_folder(tmp_path):
    """In a checkout of links whose environment is the one at hand; a module in the caller's folder is not imported."""
    (tmp_path / "scripts").mkdir()
    for file in ("python", "benchmark"):
        shutil.copy(SCRIPTS / file, tmp_path / "scripts" / file)
    (tmp_path / "scripts" / "benchmarks").symlink_to(SCRIPTS / "benchmarks")
    (tmp_path / "cancernet").symlink_to(SCRIPTS.parent / "cancernet")
    for file, content in {
        "scripts/environment": "#!/bin/sh\n",
        ".venv/bin/python": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n',
        "elsewhere/cancernet.py": "raise SystemExit(3)\n",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    command = [str(tmp_path / "scripts" / "benchmark"), "--help"]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: scripts/benchmark" in done.stdout
    command = [str(tmp_path / "scripts" / "python"), "-c", "import os; print(os.getcwd())"]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "elsewhere"


def run_benchmark(monkeypatch, *arguments: str, bf16: list[str]) -> None:
    machine = describe_machine()
    monkeypatch.setattr(benchmark, "describe_machine", lambda: {**machine, "bf16": bf16, "gpu": None})
    assert benchmark.main(list(arguments)) == 0


def test_bf16_is_left_out_where_the_processor_has_none(monkeypatch, capsys):
    measured = []

    def note(section, options, folder):
        measured.append(options.precisions)
        return lambda: {}

    monkeypatch.setattr(benchmark, "_measurement", note)
    run_benchmark(monkeypatch, "step", bf16=[])
    assert "bf16 is left out" in capsys.readouterr().out
    run_benchmark(monkeypatch, "prepare", bf16=[])
    run_benchmark(monkeypatch, "step", bf16=["avx512_bf16"])
    run_benchmark(monkeypatch, "step", "--precisions", "bf16", bf16=[])
    assert "left out" not in capsys.readouterr().out
    assert measured == [["fp32"], ["fp32", "bf16"], ["fp32", "bf16"], ["bf16"]]


def test_networks_race_to_a_table(tmp_path, monkeypatch):
    """The smallest section in torch: workers start, answer, and their figures reach both files."""
    monkeypatch.setattr("scripts.benchmarks.step.NETWORKS", ("cancernet",))
    monkeypatch.setattr("scripts.benchmarks.step.TURN_IMAGES", {"train": 2, "predict": 2})
    files = [f"--json={tmp_path / 'all.json'}", f"--markdown={tmp_path / 'all.md'}"]
    run_benchmark(monkeypatch, "networks", "--rounds=1", "--batches=2", "--precisions=fp32", *files, bf16=[])
    (figures,) = json.loads((tmp_path / "all.json").read_text())["tables"].values()
    assert [figure["name"] for figure in figures] == ["cancernet, training step, fp32", "cancernet, inference, fp32"]
    for figure in figures:
        assert figure["median"] > 0
        assert figure["peak_mb"] > 100
        assert f"| {figure['name']} |" in (tmp_path / "all.md").read_text()


def test_prepare_races_against_the_loop(tmp_path, monkeypatch):
    arguments = ["prepare", "--rounds=1", "--files=40", "--workers=1", f"--folder={tmp_path}"]
    run_benchmark(monkeypatch, *arguments, f"--json={tmp_path / 'all.json'}", bf16=[])
    tables = json.loads((tmp_path / "all.json").read_text())["tables"]
    assert [re.search("zip|folder", title)[0] for title in tables] == ["zip", "folder"]
    assert all(figure["median"] > 0 and figure["peak_mb"] > 1 for figures in tables.values() for figure in figures)


def test_ratios_are_to_the_first_row():
    first, second = Figure("a", "s", [1.0, 2.0, 4.0], 10.4), Figure("b", "s", [3.0])
    assert _cells(first, first) == ["a", "2", "1 to 4", "s", "1.00", "10"]
    assert _cells(second, first) == ["b", "3", "3 to 3", "s", "1.50", ""]
    assert "| b | 3 |" in write_markdown("title", [first, second])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell anonymous memory apart")
def test_anonymous_memory_is_what_linux_counts():
    status = Path("/proc/self/status").read_text()
    expected = int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024
    assert anonymous_memory(psutil.Process()) == pytest.approx(expected, abs=1)


def test_children_import_this_checkout():
    assert child_environment()["PYTHONPATH"] == str(SCRIPTS.parent)
