"""Find the store of an archive in the cache folder, or pack it there on first use."""

from collections.abc import Mapping
from pathlib import Path

import platformdirs

from cancernet.data.archive.source import Root, Source
from cancernet.data.store.pack import pack_source
from cancernet.data.store.store import IMAGES, MANIFEST, PatchStore, open_store
from cancernet.errors import InputError
from cancernet.files import exclusive

SYNTHETIC = "synthetic"
"""The word that stands for the synthetic archive of the default size."""


def find_store(
    root: Root,
    cache: str | Path | None = None,
    workers: int | None = None,
    columns: Mapping[str, str] | None = None,
    mpp: float | None = None,
) -> PatchStore:
    """Open the store of an archive, packing it on first use. The archive is scanned once.

    Args:
        root: A packed store, the word "synthetic", or what `Source` takes.
        cache: Where stores are kept and looked for; None takes the user's cache folder.
        workers: Processes for packing; None takes all cores.
        columns: Of a CSV table; see `Source`.
        mpp: Micrometres a pixel of the images; None where unknown.

    Raises:
        InputError: As `pack_source` and `open_store` raise it.
    """
    if isinstance(root, str | Path):
        root = find_synthetic(cache) if str(root) == SYNTHETIC else Path(root).expanduser()
        if (root / MANIFEST).exists() and (root / IMAGES).exists():
            store = open_store(root)
            if mpp is not None and mpp != store.manifest.get("mpp"):
                raise InputError(f"data.mpp is {mpp}, and {root} is packed already: give the archive itself")
            return store
    source = Source(root, columns, mpp)
    # The name tells a person what the folder is, the fingerprint tells it from others of that name.
    return pack_source(source, _cache_folder(cache) / f"{source.name}-{source.fingerprint[:16]}", workers)


def find_synthetic(cache: str | Path | None = None) -> Path:
    """Return the synthetic archive of the default size, a zip in the cache; generate it on first use.

    Raises:
        InputError: The cache cannot be written.
    """
    # SciPy, which draws the slides, is imported only where they are asked for.
    from cancernet.data.synthetic.archive import DEFAULT_CASES, DEFAULT_SEED, GENERATOR, synthesize

    path = _cache_folder(cache) / f"synthetic-{GENERATOR}-{DEFAULT_CASES}-cases-seed-{DEFAULT_SEED}.zip"
    if not path.exists():
        with exclusive(path):
            if not path.exists():  # or another process has made it while this one waited
                synthesize(path, DEFAULT_CASES, DEFAULT_SEED)
    return path


def _cache_folder(cache: str | Path | None) -> Path:
    return platformdirs.user_cache_path("cancernet") if cache is None else Path(cache).expanduser()
