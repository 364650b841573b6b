"""One of two processes that train together is killed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_other_process_ends_with_one_line(archive, cache, store, tmp_path):
    command = [
        *(sys.executable, "-m", "cancernet", "fit", f"--data.root={archive}", f"--data.cache={cache}"),
        *("--data.batch_size=16", "--trainer.max_epochs=50", f"--trainer.default_root_dir={tmp_path}"),
        *("--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.accelerator=cpu"),
        *("--trainer.enable_progress_bar=false", "--trainer.callbacks=tests.faults.deadly.Deadly"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("cancernet: error: "))
    assert "another process of this job has ended or cannot be reached" in line
