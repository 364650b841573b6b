"""Processes that meet at one file: several that write it, and one that cuts what another reads."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cancernet.checkpoints import read_checkpoint
from cancernet.training.checkpoints import recorded_calibration
from tests.training.calibrated import QUIET

ROOT = Path(__file__).parents[2]
WRITE = """
import sys
from cancernet.files import write_text
from pathlib import Path
for size in range(1, 200):
    write_text(Path(sys.argv[1]), sys.argv[2] * size * 1000)
"""


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_while(processes: list[subprocess.Popen[str]], read) -> int:
    """Call `read` until all processes have ended well; return how often."""
    times = 0
    while any(process.poll() is None for process in processes):
        read()
        times += 1
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, out + err
    return times


def test_readers_of_a_file_with_six_writers_meet_it_whole(tmp_path):
    file = tmp_path / "file"
    file.write_text("a" * 1000)

    def read() -> None:
        text = file.read_text()
        assert len(text) % 1000 == 0
        assert len(set(text)) == 1

    assert read_while([start("-c", WRITE, str(file), letter) for letter in "abcdef"], read) > 10
    assert list(tmp_path.iterdir()) == [file]


def test_three_calibrations_of_one_checkpoint_at_once_leave_it_whole(run, cache, tmp_path):
    file = Path(shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path))
    before = recorded_calibration(read_checkpoint(file))
    processes = [start("-m", "cancernet", "calibrate", str(file), f"--cache={cache}") for _ in range(3)]
    assert read_while(processes, lambda: read_checkpoint(file)) > 10
    assert recorded_calibration(read_checkpoint(file)) == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_store_cut_under_a_running_fit_is_one_line(store, tmp_path):
    copy = shutil.copytree(store.path, tmp_path / "store")
    options = [f"--data.root={copy}", "--data.batch_size=32", f"--trainer.default_root_dir={tmp_path / 'runs'}", *QUIET]
    process = start("-m", "cancernet", "fit", *options, "--trainer.max_epochs=10000")
    end = time.monotonic() + 300
    while not list(tmp_path.rglob("last.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    os.truncate(copy / "images.npy", 5000)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("cancernet: error: ")]
    assert "images.npy was cut while it was read, to 5,000 of" in line
    assert "Traceback" not in err
