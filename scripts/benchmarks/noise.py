"""Synthetic data of any size in seconds: a store of noise in the colours of tissue, and archives of PNG files."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.archive.listing import SYNTHETIC_MARK, Listing
from cancernet.data.store.decode import SIDE
from cancernet.data.store.decode_pool import file_checksum
from cancernet.data.store.decode_worker import Columns
from cancernet.data.store.pack import seal_store
from cancernet.data.store.store import IMAGES, PatchStore, open_store

CASE_PATCHES = 995
"""Patches a case; the real archive has 277,524 in 279 cases."""
CASE_COLUMNS = 32
"""Columns of the grid of patches in a case."""
PREVALENCE = 0.284
TWIN_FOLDER = "IDC_regular_ps50_idx5"
"""The real zip holds the whole tree a second time in this folder."""
BLOCK = 4096


def make_store(folder: Path, patches: int) -> PatchStore:
    """Write a store of noise by the package's own writer: some 2 GB and ten seconds for 277,524 patches.

    Args:
        folder: Of the store; one that exists is used as it is.
        patches: Number of patches, at least those of three cases for a split by case.
    """
    if folder.exists():
        return open_store(folder)
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    shape = (patches, SIDE, SIDE, 3)
    images = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, shape)
    for first in range(0, patches, BLOCK):
        images[first : first + BLOCK] = draw_patches(min(BLOCK, patches - first), generator)
    images.flush()
    del images
    side = np.full(patches, SIDE, np.int16)
    # Noise never repeats, so any distinct numbers serve as hashes.
    columns = Columns(generator.permutation(patches).astype(np.uint64), side, side, {})
    seal_store(folder, _listing(patches), columns, file_checksum(folder / IMAGES), folder.name)
    return open_store(folder)


def draw_patches(count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw noise around pink and violet: uint8 (count, 50, 50, 3)."""
    colour = np.array([170, 110, 150], np.uint8) + generator.integers(0, 20, (count, 1, 1, 3), np.uint8)
    return colour + generator.integers(0, 64, (count, SIDE, SIDE, 3), np.uint8)


def patch_names(patches: int) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield path, case, label, x and y (pixels) of each patch, in the order of a store."""
    for row in range(patches):
        case, place = divmod(row, CASE_PATCHES)
        y, x = divmod(place, CASE_COLUMNS)
        label = int((place % 250) / 250 < PREVALENCE)
        left, top = 1 + SIDE * x, 1 + SIDE * y
        name = f"{10_000 + case}_idx5_x{left}_y{top}_class{label}.png"
        yield f"{10_000 + case}/{label}/{name}", 10_000 + case, label, left, top


def _listing(patches: int) -> Listing:
    path, case, label, x, y = zip(*patch_names(patches), strict=True)
    return Listing(
        source=Path("benchmark"),
        kind="folder",
        fingerprint="0" * 64,
        synthetic=True,
        path=list(path),
        case=list(map(str, case)),
        label=np.array(label, np.int8),
        x=np.array(x, np.int32),
        y=np.array(y, np.int32),
        place=[],
        duplicates=0,
        rejects=[],
    )


def make_zip(path: Path, patches: int, twice: bool, tiny: bool) -> Path:
    """Write a zip in the layout of the real one.

    Args:
        path: Of the zip; one that exists is used as it is.
        patches: Number of patches.
        twice: Whether it holds the tree twice, as the real one does.
        tiny: Whether each patch has one colour only, for measurements that depend on the number of entries.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        contents = _contents(tiny)
        partial = path.with_suffix(".partial")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for folder in ("", f"{TWIN_FOLDER}/") if twice else ("",):
                for row, (name, *_) in enumerate(patch_names(patches)):
                    archive.writestr(folder + name, contents[row % len(contents)])
            archive.writestr(SYNTHETIC_MARK, "{}")
        partial.replace(path)
    return path


def make_folder(root: Path, patches: int, twice: bool = False) -> Path:
    """Write the files of `make_zip` into a folder, the second tree as hard links; one that exists is used as it is."""
    if not root.exists():
        contents = _contents(tiny=False)
        for row, (name, *_) in enumerate(patch_names(patches)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(contents[row % len(contents)])
            if twice:
                (root / TWIN_FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
                (root / TWIN_FOLDER / name).hardlink_to(root / name)
        (root / SYNTHETIC_MARK).write_text("{}", encoding="utf-8")
    return root


def _contents(tiny: bool) -> list[bytes]:
    """Return 257 PNG files to be repeated: reading and decoding them costs as much as different ones."""
    generator = np.random.default_rng(1)
    pixels = draw_patches(257, generator)
    if tiny:
        pixels[:] = pixels[:, :1, :1]
    else:
        pixels = _smooth(pixels)
    files = []
    for patch in pixels:
        file = io.BytesIO()
        Image.fromarray(patch).save(file, "PNG")
        files.append(file.getvalue())
    return files


def _smooth(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average neighbours, so that files compress as well as tissue (real ones have about 6 kB)."""
    wide: NDArray[np.floating] = pixels.astype(np.float32)
    for axis in (1, 2):
        wide = (wide + np.roll(wide, 1, axis)) / 2
    return wide.round().astype(np.uint8)
