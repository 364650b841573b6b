"""Section `memory`: the anonymous memory of `fit` on a store of many patches.

The store is sparse: its pixels are all black and take no room on the disk, its index is real.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from cancernet.data.store.decode import PATCH_BYTES, SIDE
from cancernet.data.store.store import FORMAT, IMAGES, INDEX, MANIFEST, VERSION, PatchStore, open_store
from scripts.benchmarks.commands import run_watched
from scripts.benchmarks.noise import patch_names
from scripts.benchmarks.race import Figure

STEPS = 6
BLOCK = 1 << 17
"""Rows of the index that are written at a time."""


def make_sparse_store(folder: Path, patches: int) -> PatchStore:
    """Write a store of black patches with the index of a real one; a folder that exists is used as it is.

    The hashes differ, as those of real patches do.
    """
    if folder.exists():
        return open_store(folder)
    folder.mkdir(parents=True)
    with (folder / IMAGES).open("wb") as file:
        shape = (patches, SIDE, SIDE, 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + patches * PATCH_BYTES)
    kinds = {"path": "string", "case": "string", "label": "int8", "x": "int32", "y": "int32"}
    kinds |= {"width": "int16", "height": "int16", "hash": "uint64"}
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in kinds.items()])
    cases: set[int] = set()
    idc = 0
    names, hashes = patch_names(patches), np.random.default_rng(0)
    with parquet.ParquetWriter(folder / INDEX, schema, compression="zstd") as writer:
        for first in range(0, patches, BLOCK):
            path, case, label, x, y = zip(*(next(names) for _ in range(min(BLOCK, patches - first))), strict=True)
            side = np.full(len(path), SIDE, np.int16)
            image = hashes.integers(0, 1 << 63, len(path), np.uint64)
            columns = [path, [str(number) for number in case], label, x, y, side, side, image]
            arrays = [pyarrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            cases.update(case)
            idc += sum(label)
    counts: dict[str, Any] = {"patches": patches, "cases": len(cases), "idc": idc, "benign": patches - idc}
    counts |= {"prevalence": idc / patches, "edge_patches": 0, "duplicates": 0, "identical_images": 0, "rejects": {}}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": folder.name,
        "synthetic": True,
        "source": {"kind": "folder", "name": folder.name, "fingerprint": f"{patches:0128x}"},
        "patches": patches,
        "cases": len(cases),
        "audit": counts,
        "rejects": [],
        "bytes": {file: (folder / file).stat().st_size for file in (IMAGES, INDEX)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return open_store(folder)


def measure_memory(folder: Path, sizes: list[int], batch: int) -> list[Figure]:
    """Run `fit` for six steps, two validation batches and its calibration, on a store of each size."""
    figures = []
    for patches in sizes:
        store = make_sparse_store(folder / f"sparse-{patches}", patches)
        _, seconds, peak = run_watched("-m", "cancernet", "fit", *fit_arguments(store, folder, batch))
        figures.append(Figure(f"fit, {patches:,} patches, highest anonymous memory", "MB", [peak]))
        figures.append(Figure(f"fit, {patches:,} patches, time", "s", [seconds]))
    return figures


def fit_arguments(store: PatchStore, folder: Path, batch: int) -> list[str]:
    """Return the options of a short `fit` on a store."""
    return [
        f"--data.root={store.path}",
        f"--data.batch_size={batch}",
        f"--trainer.max_steps={STEPS}",
        "--trainer.limit_val_batches=2",
        f"--trainer.default_root_dir={folder}",
        "--trainer.enable_progress_bar=false",
    ]
