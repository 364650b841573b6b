"""A synthetic archive in the layout of the IDC archive, drawn so that the whole chain can be tried without a download.

It tells whether the chain works, never how well a model reads tissue: whatever is measured on it is marked synthetic.
"""

import io
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cancernet.data.archive.listing import SYNTHETIC_MARK
from cancernet.data.synthetic.tissue import Slide, draw_slide
from cancernet.errors import InputError

GENERATOR = "cancernet-tissue-2"
"""Name and version of the drawing: a change of a single pixel gets a new number."""
DEFAULT_CASES = 40
"""Some 6,000 patches: drawn, learned and tested within minutes on two processor cores."""
DEFAULT_SEED = 0

PATCH = 50
"""Side of a patch in pixels."""
LEAST_TISSUE = 0.15
"""Share of a grid cell that tissue must fill, or the cell is left out as empty."""
FIRST_CASE = 90001
"""The archive's own cases end at 16896: a drawn one can never be taken for one of them."""
MOST_CASES = 9999
FEWEST_CASES = 3
"""Training, validation and test need one whole case each."""
CASES_WORTH_PROCESSES = 6
"""Starting processes takes about a second each, a case likewise."""

Patch = tuple[str, bytes]  # name within the archive, PNG file
Write = Callable[[str, bytes], None]


def synthesize(output: Path, cases: int = DEFAULT_CASES, seed: int = DEFAULT_SEED, progress: bool = True) -> int:
    """Draw an archive into a folder, or into a zip where `output` ends in .zip.

    It is written beside its destination and renamed when complete, so that an interrupted drawing leaves nothing there.

    Args:
        output: folder (absent or empty) or zip file (absent).
        cases: number of cases, 3 or more. Case k is the same however many are drawn.
        seed: 0 or more. One seed gives one archive, byte for byte, on however many cores.
        progress: show a progress bar.

    Returns:
        Number of patches.

    Raises:
        InputError: if the destination is taken or cannot be written, or a number is out of range.
    """
    output = Path(output).absolute()
    zipped = output.suffix.lower() == ".zip"
    count = 0
    try:
        _check(output, cases, seed)
        # Closed on the way out: an interruption must not wait for cases that nobody will write.
        with _aside(output, zipped) as write, closing(_draw_all(cases, seed)) as drawn:
            with tqdm(total=cases, desc=f"drawing {output.name}", unit="case", disable=not progress) as bar:
                for patches in drawn:
                    for name, content in patches:
                        write(name, content)
                    count += len(patches)
                    bar.update()
                    bar.set_postfix(patches=count)
            write(SYNTHETIC_MARK, json.dumps({"generator": GENERATOR, "seed": seed, "cases": cases}).encode() + b"\n")
    except OSError as error:
        raise InputError(
            f"Cannot write the synthetic archive {output}: {error.strerror or error}. Choose another place."
        ) from error
    return count


def cut_patches(slide: Slide, case: str) -> list[Patch]:
    """Cut a slide along the grid into named PNG files, those with tissue only.

    The label is exact: IDC where more than half of the patch's tissue lies in the tumour.
    """
    height, width = slide.tissue.shape
    patches = []
    for top in range(0, height, PATCH):
        for left in range(0, width, PATCH):
            cell = np.s_[top : top + PATCH, left : left + PATCH]
            tissue = slide.tissue[cell]
            if tissue.mean() < LEAST_TISSUE:
                continue
            label = int(2 * np.count_nonzero(slide.tumour[cell]) > np.count_nonzero(tissue))
            name = f"{case}/{label}/{case}_idx5_x{left + 1}_y{top + 1}_class{label}.png"
            content = io.BytesIO()
            Image.fromarray(slide.image[cell]).save(content, "PNG", compress_level=4)
            patches.append((name, content.getvalue()))
    return patches


def _check(output: Path, cases: int, seed: int) -> None:
    """Refuse bad input before anything is drawn."""
    if not FEWEST_CASES <= cases <= MOST_CASES:
        raise InputError(
            f"Expected {FEWEST_CASES} to {MOST_CASES} cases, but got {cases}: "
            "training, validation and test need one each."
        )
    if seed < 0:
        raise InputError(f"Expected a seed of 0 or more, but got {seed}.")
    if output.suffix.lower() == ".zip" or not output.is_dir():
        if output.exists() or output.is_symlink():
            raise InputError(f"{output} exists already. Name another output, or remove it first.")
    elif any(output.iterdir()):
        raise InputError(f"The folder {output} is not empty. Name another output, or empty it first.")


@contextmanager
def _aside(output: Path, zipped: bool) -> Iterator[Write]:
    """Write into a temporary place beside the output; rename it when all went well, remove it otherwise."""
    output.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent))
    try:
        if zipped:
            with zipfile.ZipFile(place / output.name, "w", zipfile.ZIP_STORED) as archive:
                yield lambda name, content: archive.writestr(_entry(name), content)
            (place / output.name).replace(output)
        else:
            folder = place / "archive"  # mkdtemp makes its folder private, this one has the usual permissions
            folder.mkdir()
            yield lambda name, content: _write_file(folder / name, content)
            if output.is_dir():
                output.rmdir()  # empty, or this fails; a rename onto an existing folder fails on Windows
            folder.replace(output)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _entry(name: str) -> zipfile.ZipInfo:
    """Return a zip entry that is readable when unpacked, with a fixed date: the same drawing gives the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    return entry


def _write_file(path: Path, content: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _draw_all(cases: int, seed: int) -> Generator[list[Patch]]:
    """Draw all cases in order, with all cores where that pays."""
    jobs = [(seed, number) for number in range(cases)]
    workers = min(_cores(), cases)
    if workers == 1 or cases < CASES_WORTH_PROCESSES:
        yield from map(_draw_case, jobs)
        return
    # Spawned, not forked: the caller may hold threads (torch), whose locks a fork would copy in any state.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_leave_interrupts) as pool:
        try:
            yield from pool.map(_draw_case, jobs)
        except BrokenProcessPool as error:
            raise InputError(
                "A process that draws was killed, perhaps for want of memory. Close other programs and try again."
            ) from error


def _draw_case(job: tuple[int, int]) -> list[Patch]:
    """Draw one case; a function of the module, so that a spawned process finds it."""
    seed, number = job
    return cut_patches(draw_slide(seed, number), str(FIRST_CASE + number))


def _leave_interrupts() -> None:
    """Let Ctrl-C reach the main process alone, which then ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
