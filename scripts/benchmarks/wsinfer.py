"""From slide to map as a whole command, against `wsinfer run` with the same model on the same slide, in turns."""

import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cancernet.data.synthetic.tissue import draw_slide
from cancernet.export.command import export
from cancernet.slides.stitch import write_pyramid
from cancernet.training.task import ClassificationTask
from scripts.benchmarks.machine import anonymous_memory_of_tree, child_environment, watch_memory
from scripts.benchmarks.race import Figure

NETWORKS = ("cancernet", "residual")
BATCH = 256


def race_wsinfer(folder: Path, tiles: int, rounds: int, python: str) -> dict[str, list[Figure]]:
    """Map a synthetic slide of about `tiles` tiles by `cancernet map` and by WSInfer, each a process of its own.

    Args:
        folder: For the slide and what is written.
        tiles: Of the slide, which is one synthetic slide repeated.
        rounds: Turns of each.
        python: Interpreter of an environment that has WSInfer (see scripts/interop).
    """
    drawn = draw_slide(0, 0).image
    repeats = math.ceil(math.sqrt(tiles * 2500 / (drawn.shape[0] * drawn.shape[1])))
    slides = folder / "slides"
    slides.mkdir(parents=True, exist_ok=True)
    write_pyramid(slides / "slide.tif", np.tile(drawn, (repeats, repeats, 1)), {"synthetic": True})
    registry = folder / ".wsinfer-zoo" / "wsinfer-zoo-registry.json"
    registry.parent.mkdir(exist_ok=True)
    registry.write_text('{"models": {}}', encoding="utf-8")  # WSInfer would ask the network for its list
    return {f"a slide, {network}": _race(folder, slides, network, rounds, python) for network in NETWORKS}


def _race(folder: Path, slides: Path, network: str, rounds: int, python: str) -> list[Figure]:
    checkpoint, model = folder / f"{network}.ckpt", folder / f"{network}-wsinfer"
    content: dict[str, object] = {}
    task = ClassificationTask(network=network)
    task.on_save_checkpoint(content)
    torch.save({**content, "state_dict": task.state_dict()}, checkpoint)
    shutil.rmtree(model, ignore_errors=True)
    export(checkpoint, "wsinfer", model)
    map_here = [sys.executable, "-m", "cancernet", "map", str(checkpoint), str(slides / "slide.tif"), "--output"]
    files = ["--model-path", str(model / "torchscript_model.pt"), "--config", str(model / "config.json")]
    wsinfer = [python, "-m", "wsinfer", "run", "--wsi-dir", str(slides), *files]
    wsinfer += ["--batch-size", str(BATCH), "--num-workers", str(max(1, (os.cpu_count() or 2) - 1)), "--results-dir"]
    offline = {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": ""}
    contenders = [
        (Figure("cancernet map", "tiles/s"), map_here, child_environment(), "predictions.csv"),
        (Figure("wsinfer run", "tiles/s"), wsinfer, {**os.environ, **offline}, "model-outputs*/*.csv"),
    ]
    for _ in range(rounds):
        for figure, command, environment, table in contenders:
            output = folder / "results"
            shutil.rmtree(output, ignore_errors=True)
            start, before = time.perf_counter(), _processor_seconds()
            process = subprocess.Popen([*command, str(output)], env=environment, stdout=subprocess.DEVNULL)
            with watch_memory(process.pid, anonymous_memory_of_tree) as peak:
                if process.wait():
                    raise RuntimeError(f"{figure.name} ended with status {process.returncode}")
            seconds = time.perf_counter() - start
            count = sum(len(pd.read_csv(file)) for file in output.rglob(table))
            figure.add(count / seconds, peak.megabytes)
            used = f"{seconds:.1f} s, {_processor_seconds() - before:.1f} s of the processor"
            print(f"  {network}, {figure.name}: {count:,} tiles in {used}", file=sys.stderr, flush=True)
    return [figure for figure, *_ in contenders]


def _processor_seconds() -> float:
    """Return the processor's seconds of all children that ended, which other work on the machine changes little."""
    times = os.times()
    return times.children_user + times.children_system
