"""Print the table of every format by every runtime: `python -m tests.interop.table --data ROOT --checkpoint CKPT`."""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from cancernet.checkpoints import read_checkpoint
from cancernet.export.check import BACKENDS, Agreement, check, run_elsewhere
from cancernet.export.command import expect, take_patches
from cancernet.export.metadata import describe
from cancernet.export.writers import WRITERS, Subject, build_plain
from cancernet.training.checkpoints import trusted_network_config
from cancernet.training.task import ClassificationTask


def main() -> None:
    """Export in every format and type of input, run each file in every runtime, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="archive whose patches are compared")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=1000)
    parser.add_argument("--cache", help="folder for packed stores")
    given = parser.parse_args()
    content = read_checkpoint(given.checkpoint)
    task = ClassificationTask(**trusted_network_config(content))
    task.load_state_dict(content["state_dict"])
    task.eval()
    patches = take_patches(given.data, given.patches, task.image_size, given.cache)
    print(f"Largest difference in probability over {len(patches):,} patches of {Path(given.data).name}\n")
    print("| format | runtime | uint8 | float32 |\n|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False):
        for form, writer in WRITERS.items():
            rows: dict[str, list[str]] = {}
            for dtype in ("uint8", "float32"):
                if form in ("weights", "safetensors") and dtype == "uint8":
                    continue  # weights have no input
                subject = Subject(task.network, describe(given.checkpoint, content, form, dtype))
                file = Path(folder, f"{dtype}{writer.suffix}")
                writer.write(subject, file)
                if form == "weights":
                    Path(f"{file}.json").write_text(build_plain(subject).to_json(), encoding="utf-8")
                expected = expect(task, patches, 1.0 if form == "weights" else subject.temperature)
                for agreement in check_everywhere(form, file, patches, expected):
                    rows.setdefault(agreement.runtime, []).append(f"{agreement.difference:.1e}")
            for runtime, differences in rows.items():
                cells = differences if len(differences) == 2 else ["–", *differences]
                print(f"| `{form}` | {runtime} | {' | '.join(cells)} |", flush=True)


def check_everywhere(form: str, file: Path, patches: np.ndarray, expected: np.ndarray) -> list[Agreement]:
    """Check in this environment and, for the formats that Keras opens, in the one with TensorFlow and JAX."""
    if form not in ("keras", "weights"):
        return check(form, file, patches, expected)
    other = os.environ["CANCERNET_INTEROP"]
    here = run_elsewhere(form, file, patches, expected, backend=BACKENDS[0])
    return [here, *(run_elsewhere(form, file, patches, expected, backend=name, python=other) for name in BACKENDS[1:])]


if __name__ == "__main__":
    main()
