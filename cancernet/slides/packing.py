"""`predict` on a region or a slide: its tiles as a packed store, which several processes share as any other."""

import argparse
import hashlib
import json
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from cancernet.data.archive.layout import UNLABELLED
from cancernet.data.archive.listing import Listing, show
from cancernet.data.store.decode import ARCHIVE_MPP, LARGEST_SIDE, SIDE, pixel_hash
from cancernet.data.store.decode_pool import Columns, file_checksum
from cancernet.data.store.find import cache_folder
from cancernet.data.store.pack import seal_store
from cancernet.data.store.store import IMAGES, read_manifest
from cancernet.files import cannot_write, exclusive, new_folder
from cancernet.preflight import recorded_cache
from cancernet.slides.opening import IMAGE_ENDINGS, SLIDE_ENDINGS, open_source
from cancernet.slides.plan import plan_tiles
from cancernet.slides.source import Source
from cancernet.slides.tiles import read_tiles


def pack_root(words: list[str]) -> list[str]:
    """Put the packed tiles of a region or a slide in the place of its file on the command line of `predict`.

    Args:
        words: What follows the command. `--data.root`, `--data.mpp` and `--data.cache` are understood.

    Returns:
        The words as they are where the root is no region and no slide.

    Raises:
        InputError: The file cannot be read, or the store cannot be written.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--data.root", "--data.mpp", "--data.cache", "--ckpt_path"):
        parser.add_argument(name, dest=name)
    try:
        given, others = parser.parse_known_args(words)
        root, mpp, cache, checkpoint = vars(given).values()
        scale = None if mpp is None else float(mpp)
    except (argparse.ArgumentError, ValueError):
        return words  # the parser of all options says what is wrong
    only_asked = any(word.startswith("--print_config") for word in words)
    if root is None or only_asked or not _is_whole(Path(root).expanduser()):
        return words
    cache = recorded_cache(str(checkpoint)) if cache is None else cache
    store = pack_slide(Path(root).expanduser(), cache_folder(cache), scale)
    kept = {"--data.cache": cache, "--ckpt_path": checkpoint, "--data.root": str(store)}
    return [*others, *(f"{name}={value}" for name, value in kept.items() if value is not None)]


def _is_whole(path: Path) -> bool:
    """Tell whether a file is a region or a slide, which holds many patches."""
    if not path.is_file():
        return False
    if path.suffix.lower() in SLIDE_ENDINGS:
        return True
    if path.suffix.lower() not in IMAGE_ENDINGS:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return max(image.size) > LARGEST_SIDE
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except (OSError, ValueError, SyntaxError):
        return False


def pack_slide(path: Path, cache: Path, mpp: float | None = None) -> Path:
    """Pack the tiles that `map` predicts of a region or a slide, one beside the other, into a store.

    Args:
        path: The file.
        cache: The folder of stores.
        mpp: Micrometres a pixel of the finest level, in place of the file's own.

    Returns:
        The store's folder; what was packed before is found again.

    Raises:
        InputError: The file cannot be read, has no scale or no tissue, or the store cannot be written.
    """
    with closing(open_source(path, mpp)) as source:
        status = path.stat()
        identity = [str(path.resolve()), status.st_size, status.st_mtime_ns, source.mpp]
        fingerprint = hashlib.blake2b(json.dumps(identity).encode()).hexdigest()
        store = cache / f"{path.stem}-{fingerprint[:16]}"
        with exclusive(store):
            if read_manifest(store) is None:
                try:
                    with new_folder(store) as partial:
                        _write(source, partial, fingerprint)
                except OSError as error:
                    raise cannot_write(store, error) from error
    return store


def _write(source: Source, folder: Path, fingerprint: str) -> None:
    path, tiles = Path(source.name), plan_tiles(source, SIDE, tissue=True)
    count = len(tiles.left)
    images = np.lib.format.open_memmap(folder / IMAGES, "w+", np.uint8, (count, SIDE, SIDE, 3))
    columns = Columns.zeros(count)
    columns.width[:], columns.height[:] = SIDE, SIDE
    for numbers, pixels in read_tiles(source, tiles.left, tiles.top, SIDE):
        images[numbers] = pixels
        columns.hash[numbers] = [pixel_hash(tile) for tile in pixels]
    images.flush()
    scale = f"{source.mpp:.4g} micrometres a pixel, {source.mpp_from}"
    listing = Listing(
        source=path,
        kind="files",
        fingerprint=fingerprint,
        synthetic=source.synthetic,
        path=[f"{show(path.name)}/x{x}_y{y}" for x, y in zip(tiles.left, tiles.top, strict=True)],
        case=[show(path.stem)] * count,
        label=np.full(count, UNLABELLED, np.int8),
        x=tiles.left.astype(np.int32),
        y=tiles.top.astype(np.int32),
        place=[],
        duplicates=0,
        rejects=[],
        layout=f"tiles with tissue of one file, cut at {ARCHIVE_MPP:g} micrometres a pixel ({scale})",
    )
    seal_store(folder, listing, columns, file_checksum(folder / IMAGES), path.stem)
