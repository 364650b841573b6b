"""Find out which size the images of an archive have, and say what becomes of them."""

import io
from collections import Counter
from contextlib import ExitStack, suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.archive.listing import Listing
from cancernet.data.archive.members import PatchError, read_file, read_member
from cancernet.data.pixels import FORMATS
from cancernet.data.store.decode import ARCHIVE_MPP, SIDE, Scaling

SURVEYED = 64
"""Images, evenly spaced over an archive, whose size is looked at before any is decoded."""
PATCH_WIDTH = SIDE * ARCHIVE_MPP
"""Micrometres of tissue along a side of a patch."""
NEAR_ENOUGH = 0.1
"""An image holds as much tissue as a patch where its width differs by no more than this share."""


def choose_scaling(listing: Listing) -> Scaling:
    """Choose how the images of an archive become patches.

    Where every position is known, the images are a grid cut from slides: most are square and of one size, and smaller
    ones come from a slide's edge. Otherwise each image is whole by itself.
    """
    if len(listing) == 0 or (listing.x < 0).any():
        return Scaling(None, listing.mpp)
    rows = np.unique(np.linspace(0, len(listing) - 1, SURVEYED).astype(np.int64))
    squares: Counter[int] = Counter()
    with ExitStack() as stack:
        archive = stack.enter_context(listing.source.open("rb")) if listing.kind == "zip" else None
        for row in rows:
            # What cannot be read is found and counted when all are decoded.
            with suppress(PatchError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                place = listing.place[row]
                data = read_file(str(place)) if archive is None else read_member(archive, place)
                with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                    width, height = image.size
                squares[width] += width == height
    side = max(squares, key=lambda width: (squares[width], width), default=SIDE)
    return Scaling(side if squares[side] else SIDE, listing.mpp)


def describe_sizes(scaling: Scaling, width: NDArray[np.int16], height: NDArray[np.int16]) -> str:
    """Say what became of images of these sizes; empty where they are patches as they are.

    >>> describe_sizes(Scaling(96), np.full(3, 96, np.int16), np.full(3, 96, np.int16))
    'images of 96x96 pixels resized to 50x50, whatever tissue they hold: give --data.mpp (micrometres a pixel) if known'
    >>> describe_sizes(Scaling(224, 0.5), np.full(3, 224, np.int16), np.full(3, 224, np.int16)).split(": ")[0]
    'images of 224x224 pixels at 0.5 micrometres hold 112 micrometres of tissue where a patch holds 200'
    """
    largest = np.maximum(width, height)
    side = scaling.side or int(np.median(largest))
    one = scaling.side is not None or largest.min() == largest.max()
    size = f"{side}x{side}" if one else f"{largest.min()} to {largest.max()}"
    if scaling.mpp is None:
        if side == SIDE and one:
            return ""
        return (
            f"images of {size} pixels resized to {SIDE}x{SIDE}, whatever tissue they hold: give --data.mpp "
            "(micrometres a pixel) if known"
        )
    tissue = side * scaling.mpp
    held = f"images of {size} pixels at {scaling.mpp:g} micrometres hold {tissue:.0f} micrometres of tissue"
    if abs(tissue / PATCH_WIDTH - 1) <= NEAR_ENOUGH:
        return f"{held}, as a patch: scaled to {SIDE}x{SIDE} pixels"
    if tissue < PATCH_WIDTH:
        done = "they were scaled and the rest filled by repeating their edge, so predictions are doubtful"
    else:
        done = "only their middle counts"
    return f"{held} where a patch holds {PATCH_WIDTH:.0f}: {done}"
