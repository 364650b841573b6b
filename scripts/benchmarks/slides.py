"""From slide to map: tiles a second, and what reading, the network and writing take of it."""

import math
import os
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

import cancernet
from cancernet.slides.opening import open_source
from cancernet.slides.source import Pixels
from cancernet.slides.stitch import write_pyramid
from cancernet.slides.tiles import choose_tiles, read_tiles
from cancernet.training.task import ClassificationTask
from scripts.benchmarks.machine import resident_memory, watch_memory
from scripts.benchmarks.race import Figure


def measure_slides(folder: Path, tiles: int, rounds: int) -> dict[str, list[Figure]]:
    """Map a synthetic slide of about `tiles` tiles by OpenSlide, and do each of its parts alone."""
    side = 50 * math.isqrt(tiles)
    slide, checkpoint = folder / "slide.tif", folder / "model.ckpt"
    noise = np.random.default_rng(0).integers(90, 210, (side, side, 3), dtype=np.uint8)
    write_pyramid(slide, noise, {"synthetic": True})
    del noise
    content: dict[str, object] = {}
    task = ClassificationTask()
    task.on_save_checkpoint(content)
    torch.save({**content, "state_dict": task.state_dict()}, checkpoint)
    predictor = cancernet.load(checkpoint)
    names = ("slide to map", "reading alone", "network alone", "writing alone")
    figures = [Figure(name, "tiles/s") for name in names]
    for _ in range(rounds):
        with watch_memory(os.getpid(), resident_memory) as peak:
            start = time.perf_counter()
            found = predictor.map(slide, tissue=False)
            mapped = time.perf_counter()
            found.save(folder / "map")
            written = time.perf_counter()
        count = len(found.left)
        figures[0].add(count / (mapped - start), peak.megabytes)
        figures[3].add(count / (written - mapped))
        pixels, seconds = _read(slide)
        figures[1].add(count / seconds)
        start = time.perf_counter()
        predictor.logits(pixels)
        figures[2].add(count / (time.perf_counter() - start))
    return {f"a slide of {count:,} tiles": figures}


def _read(slide: Path) -> tuple[Pixels, float]:
    """Read all tiles, and say how many seconds that took."""
    with closing(open_source(slide)) as source:
        width, height = source.size_at(source.factor)
        left, top = choose_tiles(width, height, 50, np.ones((-(-height // 50), -(-width // 50))), everything=True)
        pixels = np.empty((len(left), 50, 50, 3), np.uint8)
        start = time.perf_counter()
        for numbers, tiles in read_tiles(source, left, top, 50):
            pixels[numbers] = tiles
    return pixels, time.perf_counter() - start
