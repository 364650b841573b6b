"""Generate a synthetic archive in the layout of the IDC archive, to try the whole chain without a download.

It shows whether the chain works, never how well a model reads tissue: what is measured on it is marked synthetic.
"""

import io
import json
import signal
import zipfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cancernet.data.archive.listing import SYNTHETIC_MARK
from cancernet.data.processes import available_cores, start_pool
from cancernet.data.synthetic.tissue import Slide, draw_slide
from cancernet.errors import InputError
from cancernet.files import new_folder, replacing

GENERATOR = "cancernet-tissue-2"
"""Name and version of the generator: a change of a single pixel needs a new number."""
DEFAULT_CASES = 40
"""Some 6,000 patches: generated, learned and tested within minutes on two processor cores."""
DEFAULT_SEED = 0

PATCH = 50
"""Side of a patch in pixels."""
LEAST_TISSUE = 0.15
"""Share of a grid cell that tissue must fill, or the cell is left out as empty."""
FIRST_CASE = 90001
"""The real cases end at 16896, so a synthetic one is never taken for one of them."""
MOST_CASES = 9999
FEWEST_CASES = 3
"""Training, validation and test need one whole case each."""
CASES_WORTH_PROCESSES = 6
"""Starting a process takes about a second, drawing a case likewise."""

Patch = tuple[str, bytes]  # name within the archive, PNG file
Write = Callable[[str, bytes], None]


def synthesize(output: Path, cases: int = DEFAULT_CASES, seed: int = DEFAULT_SEED, progress: bool = True) -> int:
    """Generate a synthetic archive, a folder or, where `output` ends in .zip, a zip.

    It appears when it is complete: an interruption leaves nothing.

    Args:
        output: Folder (absent or empty) or zip file (absent).
        cases: Number of cases, 3 or more. Case k is the same in archives of any size.
        seed: 0 or more. One seed gives one archive, byte for byte, on any number of cores.
        progress: Show a progress bar.

    Returns:
        Number of patches.

    Raises:
        InputError: The output exists or cannot be written, or a number is out of range.
    """
    output = Path(output).expanduser().absolute()
    count = 0
    try:
        _check(output, cases, seed)
        # Closed at the end: an interruption must not wait for cases that will not be written.
        with _open_output(output) as write, closing(_draw_all(cases, seed)) as finished:
            with tqdm(total=cases, desc=f"drawing {output.name}", unit="case", disable=not progress) as bar:
                for patches in finished:
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
    """Cut a slide along a grid into named PNG files, of the cells that hold tissue.

    The label is exact: IDC where more than half of the patch's tissue lies in the tumour.

    Returns:
        Path within the archive and content of each file.
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
    """Check the arguments before the first slide."""
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
def _open_output(output: Path) -> Iterator[Write]:
    """Open a zip or a folder to write files to; it appears when all are written."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix.lower() == ".zip":
        with replacing(output) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            yield lambda name, content: archive.writestr(_entry(name), content)
    else:
        with new_folder(output) as folder:
            yield lambda name, content: _write_file(folder / name, content)


def _entry(name: str) -> zipfile.ZipInfo:
    """Return a zip entry that is readable when unpacked; its date is fixed, so that equal archives have equal bytes."""
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
    workers = min(available_cores(), cases)
    if workers == 1 or cases < CASES_WORTH_PROCESSES:
        yield from map(_draw_case, jobs)
        return
    # Interrupts are left to the main process, which then ends the others.
    with start_pool(workers, signal.signal, signal.SIGINT, signal.SIG_IGN) as pool:
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
