"""A run of two epochs with averaged weights, calibrated at its end, tested and used on all patches."""

from pathlib import Path

import pandas as pd

from cancernet.cli import main

CASES = [str(7000 + number) for number in range(12)]
PARTS = dict(zip(CASES, ["train"] * 5 + ["validation"] * 2 + ["test"] * 3 + ["outside"] * 2, strict=True))
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def write_parts(path: Path, parts: dict[str, str]) -> Path:
    pd.DataFrame({"case": parts.keys(), "part": parts.values()}).to_csv(path, index=False)
    return path


def make_run(archive: Path, cache: Path, root: Path) -> Path:
    """Return its folder."""
    arguments = [
        "--config=configs/cancernet.yaml",
        f"--data.root={archive}",
        f"--data.cache={cache}",
        f"--data.split={write_parts(root / 'parts.csv', PARTS)}",
        "--data.batch_size=16",
        # The logits are computed again here, without the data module.
        "--data.stain_normalization=0",
        "--trainer.max_epochs=2",
        "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={root}",
    ]
    assert main(["fit", *arguments, *QUIET]) == 0
    folder = root / "lightning_logs" / "version_0"
    assert main(["test", f"--ckpt_path={folder}/checkpoints/best.ckpt", f"--data.cache={cache}", *QUIET]) == 0
    assert main(["predict", f"--ckpt_path={folder}/checkpoints/best.ckpt", f"--data.cache={cache}", *QUIET]) == 0
    return folder
