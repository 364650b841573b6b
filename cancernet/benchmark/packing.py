"""Section `prepare`: an archive into arrays, against the loop over Pillow that everyone writes."""

import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from cancernet.benchmark.drawing import draw_folder, draw_zip
from cancernet.benchmark.memory import run_watched
from cancernet.benchmark.rounds import Figure


def measure_packing(folder: Path, files: int, rounds: int, workers: list[int]) -> dict[str, list[Figure]]:
    """Race `prepare` with some numbers of processes against the loop, from zip and from folder.

    Both decode to uint8 (N, 50, 50, 3) on the disk; `prepare` also checks every CRC, hashes each patch and the file,
    sorts, and finds copies. Start-up of the interpreter is left out for the loop and counted for `prepare`.
    """
    tables = {}
    for source in (
        draw_zip(folder / f"archive-{files}.zip", files, twice=False, tiny=False),
        draw_folder(folder / f"archive-{files}", files),
    ):
        loop = Figure("Pillow loop, 1 process", "patches/s")
        ours = {count: Figure(f"prepare, {count} processes", "patches/s") for count in workers}
        for _ in range(rounds):
            output, _, loop.peak = run_watched(["-m", __name__, "loop", str(source), str(folder / "loop.npy")])
            loop.values.append(files / float(output))
            for count, figure in ours.items():
                seconds, peak = _prepare(source, folder / "packed", count)
                figure.values.append(files / seconds)
                figure.peak = max(figure.peak or 0.0, peak)
        (folder / "loop.npy").unlink()
        tables[f"prepare, {files:,} PNG files in a {'zip' if source.suffix else 'folder'}"] = [loop, *ours.values()]
    return tables


def measure_entries(folder: Path, entries: int) -> list[Figure]:
    """Pack a zip of many entries, the tree standing twice, and watch the memory over all processes."""
    source = draw_zip(folder / f"entries-{entries}.zip", entries // 2, twice=True, tiny=True)
    seconds, peak = _prepare(source, folder / "packed", 2)
    return [
        Figure("anonymous memory, most over all processes", "MB", [peak]),
        Figure("time", "s", [seconds]),
    ]


def _prepare(source: Path, output: Path, workers: int) -> tuple[float, float]:
    shutil.rmtree(output, ignore_errors=True)
    program = f"from cancernet.data.store.pack import pack; pack({str(source)!r}, {str(output)!r}, {workers}, False)"
    _, seconds, peak = run_watched(["-c", program])
    shutil.rmtree(output)
    return seconds, peak


def pillow_loop(source: Path, output: Path) -> float:
    """Decode every PNG one after the other into one array and save it; returns the seconds that took."""
    start = time.perf_counter()
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            entries = sorted(name for name in archive.namelist() if name.endswith(".png"))
            patches = [np.asarray(Image.open(archive.open(name)).convert("RGB")) for name in entries]
    else:
        patches = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(source.rglob("*.png"))]
    np.save(output, np.stack(patches))
    return time.perf_counter() - start


if __name__ == "__main__":
    print(pillow_loop(Path(sys.argv[2]), Path(sys.argv[3])))
