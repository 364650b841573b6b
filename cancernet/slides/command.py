"""`cancernet map`: regions and whole slides from the command line."""

import hashlib
import json
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

from cancernet.data.archive.listing import show
from cancernet.errors import InputError
from cancernet.evaluation.records import read_record
from cancernet.files import exclusive
from cancernet.pretrained import INCLUDED, is_checkpoint
from cancernet.slides.mapping import map_image, plan_of
from cancernet.slides.opening import IMAGE_ENDINGS, SLIDE_ENDINGS, open_source, series_of
from cancernet.slides.outputs import SUMMARY, write_map
from cancernet.slides.predictor import Predictor, load
from cancernet.slides.summary import MapSummary
from cancernet.slides.tiles import Stride


def map_files(
    input: list[Path],
    output: Path = Path("maps"),
    mpp: float | None = None,
    stride: Stride = 50,
    truth: Path | None = None,
    tissue: bool = True,
    network: str | None = None,
) -> None:
    """Predict regions and whole slides; write a folder for each with map, table, GeoJSON, summary and page.

    What is finished is skipped and what stopped goes on where it was. An input that fails is reported and the others
    are done; the exit status is then 2.

    Args:
        input: A checkpoint, such as .../checkpoints/best.ckpt, unless the included model is to be used; then images
            (PNG, JPEG, TIFF, BMP, WebP), slides that OpenSlide or tiffslide read, and folders of them.
        output: Folder for the results, one folder in it for each input.
        mpp: Micrometres a pixel of the finest level of all inputs, in place of their own.
        stride: Pixels of the network, at 4 micrometres, from one tile to the next. Where tiles overlap their
            probabilities are averaged.
        truth: Mask of the tumour in a single input (IDC where it is above 127 of 255), to compare with.
        tissue: Leave out tiles without tissue.
        network: The network that the checkpoint names, if it belongs neither to this project nor to Keras: its code is
            then run.

    Raises:
        InputError: No such checkpoint or input, or inputs that failed.
    """
    named = [path for path in input[:1] if is_checkpoint(path)]
    files = find_inputs(input[len(named) :])
    if not files:
        raise InputError(f"map: {named[0]} is a checkpoint; name what it is to map after it")
    if truth is not None and len(files) != 1:
        raise InputError(f"--truth {truth}: belongs to one input, got {len(files)}; map that one alone")
    predictor = load(named[0] if named else INCLUDED, network)
    failed = 0
    for file, name in zip(files, name_folders(files), strict=True):
        try:
            print(_map_file(predictor, file, output / name, mpp, stride, truth, tissue), flush=True)
        except InputError as error:
            if len(files) == 1:
                raise
            failed += 1
            print(f"failed: {error}", flush=True)
    if failed:
        others = f"; the others are in {output}" if failed < len(files) else ""
        raise InputError(f"map: {failed} of {len(files)} inputs failed, as said above{others}")


def _map_file(
    predictor: Predictor,
    file: Path,
    folder: Path,
    mpp: float | None,
    stride: Stride,
    truth: Path | None,
    tissue: bool,
) -> str:
    """Map one file and return the line that says what was found."""
    source = open_source(file, mpp)
    source.close()
    plan = plan_of(predictor, source, stride, tissue)
    plan["truth"] = None if truth is None else [str(truth.resolve()), truth.stat().st_mtime_ns if truth.exists() else 0]
    digest = hashlib.blake2b(json.dumps(plan).encode(), digest_size=16).hexdigest()
    try:
        with exclusive(folder):  # another `map` into this folder waits, and then may find it done
            if (done := _find_done(folder, digest)) is not None:
                return f"{show(str(folder))}: done before; {say(done)}"
            work = folder.parent / f".{folder.name}.unfinished"
            try:
                found = map_image(predictor, file, mpp, stride, tissue, work, progress=True)
            except InputError:  # a damaged file is not gone on with
                shutil.rmtree(work, ignore_errors=True)
                raise
            write_map(found, folder, truth, digest)
            shutil.rmtree(work)
            return f"{show(str(folder))}: {say(read_record(MapSummary, folder / SUMMARY, 'run again'))}"
    except InputError:
        with suppress(OSError):  # it holds other results
            folder.parent.rmdir()
        raise


def _find_done(folder: Path, digest: str) -> MapSummary | None:
    """Return the summary of this very map if it stands there, None if there is room for it.

    Raises:
        InputError: Something else stands there.
    """
    if (folder / SUMMARY).is_file():
        summary = read_record(MapSummary, folder / SUMMARY, "remove this folder and run again")
        return summary if summary.plan == digest else None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and was not written by map; give another --output")
    return None


def say(summary: MapSummary) -> str:
    """Say in a line what a map shows."""
    share = 0.0 if summary.idc_share is None else summary.idc_share
    said = (
        f"{summary.tiles:,} tiles, {summary.idc_area_mm2:.3g} of {summary.tissue_area_mm2:.3g} mm² called IDC "
        f"({share:.1%}) at threshold {summary.threshold:.4g}"
    )
    if summary.truth is not None and summary.truth.auroc is not None:
        said += f", AUROC {summary.truth.auroc:.3f} against the mask"
    return said + (" (synthetic data)" if summary.synthetic_tissue or summary.synthetic_training else "")


def find_inputs(given: list[Path]) -> list[Path]:
    """List the files to map: those given, and the images and slides that lie in a given folder.

    A slide in DICOM is a series of files, of which the first is listed.

    Raises:
        InputError: A folder holds none.
    """
    files: list[Path] = []
    for path in given:
        path = path.expanduser()
        if not path.is_dir():
            files.append(path)
            continue
        within = sorted(file for file in path.iterdir() if _is_input(file))
        if not within:
            raise InputError(f"{path}: no image or slide in this folder; give files, or a folder that holds some")
        series = {file: series_of(file) or str(file) for file in within if file.suffix.lower() == ".dcm"}
        first = {name: file for file, name in reversed(series.items())}
        files += [file for file in within if file not in series or first[series[file]] == file]
    return list(dict.fromkeys(files))


def _is_input(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and file.suffix.lower() in SLIDE_ENDINGS | IMAGE_ENDINGS


def name_folders(files: list[Path]) -> list[str]:
    """Name the folder of each file after it; where two would have the same name, with some letters of a hash.

    >>> name_folders([Path("a/slide.svs"), Path("a/other.png")])
    ['slide', 'other']
    """
    stems = [file.stem or file.name for file in files]
    uses = Counter(stem.casefold() for stem in stems)
    return [
        stem if uses[stem.casefold()] == 1 else f"{stem}-{_short_hash(file)}"
        for stem, file in zip(stems, files, strict=True)
    ]


def _short_hash(file: Path) -> str:
    return hashlib.blake2b(str(file.resolve()).encode("utf-8", "surrogateescape"), digest_size=3).hexdigest()
