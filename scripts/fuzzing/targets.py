"""What is fuzzed: readers of what users give. Anything but the errors that they document is a finding."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.fuzzing.models import make_checkpoints, make_hdf5, make_keras
from scripts.fuzzing.target import Target


def make_names(folder: Path) -> Target:
    """Names of the files in an archive, a line each."""
    from cancernet.data.archive.listing import select
    from cancernet.data.archive.scan import Contents
    from tests.data.drawing import trapped_files

    def run(data: bytes) -> None:
        names = data.decode("utf-8", "surrogateescape").split("\n")
        listing = select(folder, "0" * 128, Contents(names, np.array([len(name) for name in names]), {}))
        listed = len(listing) + listing.duplicates + len(listing.rejects)
        assert listed + sum(name.rpartition("/")[2] == "SYNTHETIC.json" for name in names) == len(names)
        assert all(path.isprintable() for path in listing.path)

    return Target(run, ["\n".join(trapped_files()[0]).encode()])


def make_zips(folder: Path) -> Target:
    """A zip of patches, whole."""
    from cancernet.data.archive.members import PatchError, read_member
    from cancernet.data.archive.source import Source
    from cancernet.data.store.decode import decode_patch
    from tests.data.drawing import clean_files, trapped_files, write_zip

    archive = folder / "a.zip"

    def run(data: bytes) -> None:
        archive.write_bytes(data)
        listing = Source(archive).list_patches()
        with archive.open("rb") as file:
            for place in np.asarray(listing.place)[:3]:
                try:
                    decode_patch(read_member(file, place))
                except PatchError:
                    continue

    files = dict(list(clean_files().items())[:2]), dict(list(trapped_files()[0].items())[-9:])
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return Target(run, [write_zip(archive, some, method).read_bytes() for some in files for method in methods])


def make_tables(folder: Path) -> Target:
    """A CSV table of a cohort."""
    from cancernet.data.archive.source import Source

    (folder / "a.png").write_bytes(b"x")
    (folder / "b.png").write_bytes(b"y")
    table = folder / "t.csv"

    def run(data: bytes) -> None:
        table.write_bytes(data)
        Source(table).list_patches()

    seeds = ["path,label,case,x,y\na.png,1,7,0,50\nb.png,0,8,,\n", 'path;label;case\n"a.png";0.0;é\nb.png;x;\n']
    return Target(run, [seed.encode() for seed in seeds])


def make_images(folder: Path) -> Target:
    """The bytes of an image."""
    from PIL import Image

    from cancernet.data.archive.members import PatchError
    from cancernet.data.store.decode import decode_patch
    from tests.data.drawing import draw_png, encode

    modes = [Image.new(mode, (3, 2), 1) for mode in ("L", "1", "P", "LA", "RGBA", "I;16")]
    kinds = ("JPEG", "TIFF", "BMP", "GIF", "WEBP")
    seeds = [draw_png(0, 4, 3), *map(encode, modes), *(encode(Image.new("RGB", (4, 3)), kind) for kind in kinds)]
    return Target(decode_patch, seeds, (PatchError,))


def make_stores(folder: Path) -> Target:
    """A packed store: its manifest, index or header of the pixels is what is given; the first byte tells which."""
    from cancernet.data.audit import audit, render
    from cancernet.data.splits import make_split
    from cancernet.data.store.pack import pack
    from cancernet.data.store.store import open_store
    from tests.data.drawing import clean_files, write_zip

    store = pack(write_zip(folder / "a.zip", clean_files(cases=4)), folder / "store", workers=1, progress=False).path
    names = ("manifest.json", "index.parquet", "images.npy")
    whole = [(store / name).read_bytes() for name in names]
    manifest = json.loads(whole[0])

    def run(data: bytes) -> None:
        part = data[0] % 3 if data else 0
        contents = list(whole)
        contents[part] = data[1:] if part < 2 else data[1:] + whole[2][len(data[1:]) :]
        sizes = {name: len(content) for name, content in zip(names[1:], reversed(contents[:0:-1]), strict=True)}
        if part:  # the sizes are right, or nothing more would be looked at
            contents[0] = json.dumps(manifest | {"bytes": sizes}).encode()
        for name, content in zip(names, contents, strict=True):
            (store / name).write_bytes(content)
        opened = open_store(store)
        render(audit(opened))
        make_split(opened.index)
        opened.gather(np.arange(len(opened)))

    return Target(run, [bytes([part]) + content[:4000] for part, content in enumerate(whole)])


def make_runs(folder: Path) -> Target:
    """A run folder: one of its files is what is given; the first byte tells which."""
    from cancernet.evaluation.context.cases import parts_of_cases
    from cancernet.evaluation.context_files import read_contexts
    from cancernet.evaluation.run_folder import read_origin, read_predictions, read_run, read_split
    from tests.evaluation.run_folders import draw_run

    run_folder = draw_run(folder / "run", cases=3, side=3, draws=20)
    (run_folder / "predictions.parquet").unlink()
    (run_folder / "split.csv").write_text("case,part,patches\n8000,test,5\n")
    names = ("metrics.json", "predictions.csv", "pictures.npz", "split.csv", "predictions.json", "context.json")
    whole = {name: (run_folder / name).read_bytes() for name in names if (run_folder / name).exists()}

    def run(data: bytes) -> None:
        name = names[data[0] % len(names) if data else 0]
        for other in names:
            if other == name or other in whole:
                (run_folder / other).write_bytes(data[1:] if other == name else whole[other])
            else:
                (run_folder / other).unlink(missing_ok=True)
        read_split(run_folder)
        parts_of_cases(read_predictions(run_folder), run_folder)
        read_origin(run_folder)
        list(read_contexts(run_folder))
        read_run(run_folder)

    seeds = [bytes([number]) + whole.get(name, b"{}") for number, name in enumerate(names)]
    return Target(run, seeds)


def make_yaml(folder: Path) -> Target:
    """A YAML file."""
    from cancernet.yaml_files import read_yaml

    file = folder / "a.yaml"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        read_yaml(file)

    shipped = sorted(Path(__file__).parents[2].glob("configs/*.yaml"))
    return Target(run, [*(path.read_bytes() for path in shipped), b"a: &a [1, {b: 2.5e-3}]\nc: {<<: {d: *a}}\n"])


def make_splits(folder: Path) -> Target:
    """A split file."""
    from cancernet.data.splits import make_split
    from tests.data.indexes import draw_index

    index = draw_index(["a", "b", "c", "d", "e"], patches=4)
    file = folder / "parts.csv"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        split = make_split(index, str(file))
        assert len(split.part) == len(index)

    cases = index["case"].unique()
    by_case = "case,part\n" + "".join(f"{case},{part}\n" for case, part in zip(cases, ["train", "test"], strict=False))
    by_path = "path,part\n" + "".join(f"{path},validation\n" for path in index["path"][:3])
    return Target(run, [by_case.encode(), by_path.encode(), b"part,case\n"])


MAKERS: dict[str, Callable[[Path], Target]] = {
    "names": make_names,
    "zips": make_zips,
    "tables": make_tables,
    "images": make_images,
    "stores": make_stores,
    "runs": make_runs,
    "checkpoints": make_checkpoints,
    "yaml": make_yaml,
    "keras": make_keras,
    "hdf5": make_hdf5,
    "splits": make_splits,
}
"""Name of a target -> what makes it in an empty folder of its own."""


def make_target(name: str, folder: Path) -> Target:
    """Make a target in a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return MAKERS[name](folder)
