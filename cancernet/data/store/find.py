"""Find the store of an archive in the cache folder, or pack it there on first use."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from cancernet.data.archive.source import Root, Source, find_paths
from cancernet.data.store.pack import pack_source
from cancernet.data.store.store import IMAGES, MANIFEST, PatchStore, open_store, read_manifest
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
        if not root.exists() and (packed := find_packed(root, cache, mpp)) is not None:
            print(f"{root} does not exist any more; its store {packed}, packed before, is used", file=sys.stderr)
            return open_store(packed)
    source = Source(root, columns, mpp)
    # The name tells a person what the folder is, the fingerprint tells it from others of that name.
    output = cache_folder(cache) / f"{source.name}-{source.fingerprint[:16]}"
    # Other columns make another store of the same table.
    before = None if output.exists() or columns or source.kind == "files" else find_packed(source.root, cache, mpp)
    store = pack_source(source, output, workers)
    if before is not None:
        counts = f"{len(open_store(before)):,} patches then, {len(store):,} now"
        print(f"{source.root} has changed since it was packed into {before} ({counts})", file=sys.stderr)
    return store


def check_root(root: str, cache: str | Path | None = None) -> None:
    """Refuse a root that does not exist, and whose store is not in the cache.

    Raises:
        InputError: Names the stores of archives of that name.
    """
    if root == SYNTHETIC or find_packed(Path(root), cache) is not None:
        return
    try:
        find_paths(root)
    except InputError as error:
        name = Path(root).name
        same = [str(folder) for folder, manifest in _packed(cache) if manifest["source"].get("name") == name]
        known = f"; the cache holds a store of another {name}, {same[0]}: give it if that is the one" if same else ""
        raise InputError(f"{error}{known}") from error


def find_packed(root: Path, cache: str | Path | None = None, mpp: float | None = None) -> Path | None:
    """Return the store in the cache that was packed last from a path, whether that still exists; None without one."""
    path = str(root.expanduser().resolve())
    stores = [
        folder
        for folder, manifest in _packed(cache)
        if manifest["source"].get("path") == path and manifest.get("mpp") == mpp
    ]
    return max(stores, key=lambda folder: (folder / MANIFEST).stat().st_mtime, default=None)


def _packed(cache: str | Path | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each store in the cache with its manifest, without those of single images: a folder holds many such."""
    for file in sorted(cache_folder(cache).glob(f"*/{MANIFEST}")):
        manifest = read_manifest(file.parent)
        source = None if manifest is None else manifest.get("source")
        if manifest is not None and isinstance(source, dict) and source.get("kind") != "files":
            yield file.parent, manifest


def find_synthetic(cache: str | Path | None = None) -> Path:
    """Return the synthetic archive of the default size, a zip in the cache; generate it on first use.

    Raises:
        InputError: The cache cannot be written.
    """
    # SciPy, which draws the slides, is imported only where they are asked for.
    from cancernet.data.synthetic.archive import DEFAULT_CASES, DEFAULT_SEED, GENERATOR, synthesize

    path = cache_folder(cache) / f"synthetic-{GENERATOR}-{DEFAULT_CASES}-cases-seed-{DEFAULT_SEED}.zip"
    if not path.exists():
        with exclusive(path):
            if not path.exists():  # or another process has made it while this one waited
                synthesize(path, DEFAULT_CASES, DEFAULT_SEED)
    return path


def cache_folder(cache: str | Path | None) -> Path:
    """Return the folder where stores are kept: the one given, or the user's cache folder."""
    return platformdirs.user_cache_path("cancernet") if cache is None else Path(cache).expanduser()
