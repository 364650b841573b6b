"""Sections `prepare`, `entries`, `folder` and `startup`: whole commands, timed from outside, their memory watched.

Run as a module it is one of the commands: `loop SOURCE OUTPUT`, `list SOURCE OUTPUT` or `open STORE
FOLDER`; each prints JSON.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from scripts.benchmarks.machine import anonymous_memory, anonymous_memory_of_tree, child_environment, watch_memory
from scripts.benchmarks.noise import make_folder, make_store, make_zip
from scripts.benchmarks.race import Figure

THIS = "scripts.benchmarks.commands"
FIRST_BATCH = 32
"""Batch of the original recipe; a larger one needs more memory for its activations."""


def measure_packing(folder: Path, files: int, rounds: int, workers: list[int]) -> dict[str, list[Figure]]:
    """Compare `prepare`, in some numbers of processes, with a loop over Pillow, on a zip and on a folder.

    Both decode to uint8 (N, 50, 50, 3) on the disk; `prepare` also checks every CRC, hashes each patch and the file,
    sorts, and finds copies. Start-up of the interpreter is left out for the loop and counted for `prepare`.
    """
    tables = {}
    for source in (
        make_zip(folder / f"archive-{files}.zip", files, twice=False, tiny=False),
        make_folder(folder / f"archive-{files}", files),
    ):
        loop = Figure("Pillow loop, 1 process", "patches/s")
        prepare = {count: Figure(f"prepare, {count} processes", "patches/s") for count in workers}
        for _ in range(rounds):
            output, _, peak = run_watched("-m", THIS, "loop", str(source), str(folder / "loop.npy"))
            loop.add(files / json.loads(output)["seconds"], peak)
            for count, figure in prepare.items():
                seconds, peak = _prepare(source, folder / "packed", count)
                figure.add(files / seconds, peak)
        (folder / "loop.npy").unlink()
        tables[f"prepare, {files:,} PNG files in a {'zip' if source.suffix else 'folder'}"] = [loop, *prepare.values()]
    return tables


def measure_entries(folder: Path, entries: int) -> list[Figure]:
    """Pack a zip of many entries, in which the tree stands twice, and watch the memory over all processes."""
    source = make_zip(folder / f"entries-{entries}.zip", entries // 2, twice=True, tiny=True)
    seconds, peak = _prepare(source, folder / "packed", 2)
    return [Figure("highest anonymous memory over all processes", "MB", [peak]), Figure("time", "s", [seconds])]


def measure_folder(folder: Path, entries: int) -> list[Figure]:
    """List and pack a folder of many files, in which the tree stands twice, as Kaggle mounts the archive."""
    source = make_folder(folder / f"folder-{entries}", entries // 2, twice=True)
    output, _, peak = run_watched("-m", THIS, "list", str(source), str(folder / "packed"))
    shutil.rmtree(folder / "packed")
    seconds = [Figure(name, "s", [value]) for name, value in json.loads(output.splitlines()[-1]).items()]
    return [*seconds, Figure("highest anonymous memory over all processes", "MB", [peak])]


def measure_startup(folder: Path, patches: int, rounds: int) -> list[Figure]:
    """Measure `--help`, `fit --help`, and `fit` to the end of its first step on a store of `patches` patches."""
    store = make_store(folder / f"store-{patches}", patches)
    figures = {
        "--help": Figure("cancernet --help", "s"),
        "fit --help": Figure("cancernet fit --help", "s"),
        "imports": Figure("imports of fit", "s"),
        "first_step": Figure(f"open {patches:,} patches, to the end of the first step", "s"),
        "anonymous": Figure("anonymous memory for that, beyond the imports", "MB"),
    }
    for _ in range(rounds):
        for command in ("--help", "fit --help"):
            figures[command].add(run_watched("-m", "cancernet", *command.split())[1])
        output, _, _ = run_watched("-m", THIS, "open", str(store.path), str(folder))
        for name, value in json.loads(output.splitlines()[-1]).items():
            figures[name].add(value)
    return list(figures.values())


def run_watched(*arguments: str) -> tuple[str, float, float]:
    """Run Python.

    Returns:
        Standard output, seconds, and the peak of anonymous memory over the process and its children, in megabytes.

    Raises:
        RuntimeError: It failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(KERAS_BACKEND="torch"),
    )
    with watch_memory(process.pid, anonymous_memory_of_tree, interval=0.05) as peak:
        output, errors = process.communicate()
        seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise RuntimeError(f"{arguments} failed: {errors.strip()[-2000:]}")
    return output, seconds, peak.megabytes


def _prepare(source: Path, output: Path, workers: int) -> tuple[float, float]:
    shutil.rmtree(output, ignore_errors=True)
    program = f"from cancernet.data.store.pack import pack; pack({str(source)!r}, {str(output)!r}, {workers}, False)"
    _, seconds, peak = run_watched("-c", program)
    shutil.rmtree(output)
    return seconds, peak


def loop(source: str, output: str) -> dict[str, float]:
    """Decode every PNG of a zip or folder by Pillow, one after the other, into one array and save it.

    Returns:
        `seconds`.
    """
    start = time.perf_counter()
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            entries = sorted(name for name in archive.namelist() if name.endswith(".png"))
            patches = [np.asarray(Image.open(archive.open(name)).convert("RGB")) for name in entries]
    else:
        patches = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(Path(source).rglob("*.png"))]
    np.save(output, np.stack(patches))
    return {"seconds": time.perf_counter() - start}


def list_and_pack(source: str, output: str) -> dict[str, float]:
    """List the files of a folder, then pack them with all cores, as `prepare` does.

    Returns:
        `listing` and `packing`, seconds, and the `processor time of both`, over all processes.
    """
    from cancernet.data.archive.source import Source
    from cancernet.data.store.pack import pack_source

    start = time.perf_counter()
    listed = Source(Path(source))
    between = time.perf_counter()
    pack_source(listed, Path(output), progress=False)
    found = {"listing": between - start, "packing": time.perf_counter() - between}
    return found | {"processor time of both": sum(os.times()[:4])}


def open_and_step(store: str, folder: str) -> dict[str, float]:
    """Open a store and train one step, as `fit` does.

    Returns:
        `imports` and `first_step`, seconds; `anonymous`, megabytes added after the imports.
    """
    start = time.perf_counter()
    from lightning.pytorch import Callback, Trainer

    from cancernet.data.datamodule import IDCDataModule
    from cancernet.training.optimization import OptimizerSettings
    from cancernet.training.task import ClassificationTask

    imported, before = time.perf_counter(), anonymous_memory(psutil.Process())
    found = {"imports": imported - start}

    class Observer(Callback):
        def on_train_batch_end(self, *_: object) -> None:
            found["first_step"] = time.perf_counter() - imported
            found["anonymous"] = anonymous_memory(psutil.Process()) - before

    trainer = Trainer(
        max_steps=1,
        accelerator="auto",
        logger=False,
        callbacks=[Observer()],
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    data = IDCDataModule(store, batch_size=FIRST_BATCH, augmentation=["original"])
    trainer.fit(ClassificationTask(optimizer=OptimizerSettings("adagrad", lr=0.01)), datamodule=data)
    return found


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    print(json.dumps({"loop": loop, "list": list_and_pack, "open": open_and_step}[command](*paths)))
