"""Open a file as a region or a slide: OpenSlide first, Pillow for images, tiffslide where OpenSlide refuses a TIFF."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image

from cancernet.data.archive.listing import SYNTHETIC_MARK
from cancernet.data.store.decode import ARCHIVE_MPP
from cancernet.errors import InputError, one_line
from cancernet.slides.images import ImageLike, read_image, require_half_a_patch
from cancernet.slides.source import Pixels, Source, array_source

SLIDE_ENDINGS = frozenset(".svs .ndpi .mrxs .vms .vmu .scn .svslide .bif .dcm .czi .zvi".split())
IMAGE_ENDINGS = frozenset(".png .jpg .jpeg .tif .tiff .bmp .webp".split())
PLAUSIBLE_MPP = (0.05, 10.0)
"""Micrometres a pixel that a microscope's image may have; 72 or 300 dots an inch are a printer's."""
MICROMETRES = {"inch": 25_400.0, "centimeter": 10_000.0}
Lock = AbstractContextManager[Any]
NO_LOCK = nullcontext()
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_source(image: ImageLike, mpp: float | None = None) -> Source:
    """Open a region or a slide.

    A slide needs a scale, its own or `mpp`. A region without one is taken to have the archive's.

    Args:
        image: A file, a Pillow image or an array (H, W, 3).
        mpp: Micrometres a pixel of the finest level, in place of the file's own.

    Raises:
        InputError: No such file, nothing that can be read, no scale, or less than half a patch.
    """
    if mpp is not None and not mpp > 0:
        raise InputError(f"mpp: expected micrometres a pixel above 0, got {mpp}")
    if isinstance(image, str | Path):
        source = _open_file(Path(image).expanduser(), mpp)
    else:
        source = array_source(read_image(image), "array", "array", *_scale(mpp, None), synthetic=False)
    require_half_a_patch(source.name, source.width, source.height, source.factor)
    return source


def _open_file(path: Path, mpp: float | None) -> Source:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an image or a slide")
    synthetic = any((folder / SYNTHETIC_MARK).exists() for folder in list(path.resolve().parents)[:3])
    refused: InputError | None = None
    if find_spec("openslide") is None:
        if path.suffix.lower() in SLIDE_ENDINGS:
            raise InputError(f"{path}: slides are read by OpenSlide: pip install 'cancernet[slides]'")
    else:
        import openslide

        try:
            if vendor := openslide.OpenSlide.detect_format(path):
                return _slide(openslide.OpenSlide(path), path, vendor, mpp, synthetic)
        except openslide.OpenSlideError as error:
            refused = InputError(f"{path}: a slide that OpenSlide cannot read ({one_line(error)}); export it again")
    with path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_MARKS
    if is_tiff and find_spec("tiffslide") is not None and (slide := _by_tiffslide(path)) is not None:
        if refused is not None or mpp is not None or _own_mpp(slide.properties) is not None:
            return _slide(slide, path, "tiffslide", mpp, synthetic, threading.Lock())
        slide.close()
    if refused is not None:
        raise refused
    pixels = read_image(path)
    with Image.open(path) as opened:
        form, dots = opened.format or "image", opened.info.get("dpi")
    own = None if not dots or not dots[0] else _plausible(MICROMETRES["inch"] / float(dots[0]))
    return array_source(pixels, str(path), form, *_scale(mpp, own), synthetic)


def series_of(path: Path) -> str | None:
    """Return the identity of the series that a DICOM file belongs to; None where OpenSlide cannot tell.

    Each level of a slide is a file of the series, and OpenSlide opens all of them by any one.
    """
    if find_spec("openslide") is None:
        return None
    import openslide

    try:
        with openslide.OpenSlide(path) as slide:
            return slide.properties.get("dicom.SeriesInstanceUID")
    except openslide.OpenSlideError:
        return None


def _by_tiffslide(path: Path) -> Any | None:
    """Open a TIFF with tiffslide; None where it cannot."""
    import tiffslide

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of a damaged file is said in one line here
    file = path.open("rb")  # which tiffslide itself does not always close
    try:
        slide = tiffslide.TiffSlide(file)
        slide.properties, slide.level_dimensions  # noqa: B018 (read now: what is damaged shows here)
        return _Closing(slide, file)
    except Exception:  # tifffile, zarr and the decoders raise errors of many kinds
        file.close()
        return None


class _Closing:
    """A slide of tiffslide that closes its file with itself."""

    def __init__(self, slide: Any, file: BinaryIO) -> None:
        self._slide, self._file = slide, file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slide, name)

    def close(self) -> None:
        self._slide.close()
        self._file.close()


def _slide(slide: Any, path: Path, form: str, mpp: float | None, synthetic: bool, lock: Lock = NO_LOCK) -> Source:
    """Make a source of a slide that has OpenSlide's interface."""
    properties = slide.properties
    own = _own_mpp(properties)
    if mpp is None and own is None:
        slide.close()
        raise InputError(f"{path}: the slide does not say its micrometres a pixel; give --mpp, such as --mpp 0.25")
    described = f"{properties.get('openslide.comment')} {properties.get('tiff.ImageDescription')}"
    width, height = slide.dimensions
    return Source(
        name=str(path),
        kind="slide",
        format=form,
        width=width,
        height=height,
        **dict(zip(("mpp", "mpp_from"), _scale(mpp, own), strict=True)),  # type: ignore[arg-type]
        synthetic=synthetic or '"synthetic": true' in described,
        levels=tuple(slide.level_dimensions),
        read_level=_reader(slide, path, lock),
        close=slide.close,
    )


def _reader(slide: Any, path: Path, lock: Lock) -> Callable[[int, int, int, int, int], Pixels]:
    """Return a function that reads a rectangle of a level; with a lock where the library is not safe under threads."""

    def read(level: int, left: int, top: int, width: int, height: int) -> Pixels:
        down = slide.level_downsamples[level]
        place = round(left * down), round(top * down)
        try:
            with lock:
                image = slide.read_region(place, level, (width, height))
        except Exception as error:  # of OpenSlide, or of any decoder behind tiffslide
            raise InputError(
                f"{path}: damaged at {place[0]}, {place[1]} ({one_line(error)}); export it again"
            ) from error
        if image.mode == "RGBA":
            pixels = np.asarray(image)
            if pixels[:, :, 3].min() == 255:
                return pixels[:, :, :3]
            # Glass that was not scanned.
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))

    return read


def _own_mpp(properties: Mapping[str, Any]) -> float | None:
    """Micrometres a pixel as a slide's metadata have it: OpenSlide's reading of it, or the resolution of a TIFF."""
    for library in ("openslide", "tiffslide"):
        if (value := properties.get(f"{library}.mpp-x")) not in (None, ""):
            return _plausible(float(value))
    unit, dots = properties.get("tiff.ResolutionUnit"), properties.get("tiff.XResolution")
    if dots and float(dots) > 0 and str(unit).lower() in MICROMETRES:
        return _plausible(MICROMETRES[str(unit).lower()] / float(dots))
    return None


def _plausible(mpp: float) -> float | None:
    return mpp if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1] else None


def _scale(mpp: float | None, own: float | None) -> tuple[float, Literal["given", "file", "assumed"]]:
    if mpp is not None:
        return mpp, "given"
    return (ARCHIVE_MPP, "assumed") if own is None else (own, "file")
