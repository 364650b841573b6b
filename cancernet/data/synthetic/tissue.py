"""Draw synthetic breast tissue: whole slides at 4 micrometres a pixel, stained with haematoxylin and eosin.

A slide is two maps of stain, in optical density, turned into colour by the Beer-Lambert law. All that differs between
cases, tissue and stain, comes from one generator seeded by (seed, case), so a case does not depend on the number of
cases. Labels are read from the tumour mask, without noise.

Sizes are in pixels: a nucleus measures 1.5 to 3 across, a fat cell 10 to 15, a duct 12 to 40.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from cancernet.data.synthetic.ellipses import Ellipses, Field, Mask, stamp
from cancernet.data.synthetic.glands import draw_benign

HAEMATOXYLIN = (0.60, 0.72, 0.36)
"""Mean direction of haematoxylin in optical density (red, green, blue); each case turns it a little."""
EOSIN = (0.13, 0.83, 0.52)
"""Mean direction of eosin in optical density, likewise."""


@dataclass(frozen=True)
class Slide:
    """A synthetic slide.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        tissue: (H, W) bool, true inside the outline of the tissue, fat included.
        tumour: (H, W) bool, true where there is invasive carcinoma; a part of `tissue`.
    """

    image: NDArray[np.uint8]
    tissue: Mask
    tumour: Mask


@dataclass(frozen=True)
class Fibres:
    """Direction and texture of the connective tissue.

    Attributes:
        along: (H, W) coordinate along the fibres.
        across: (H, W) coordinate across them.
        angle: (H, W) local direction in radians, measured from the x axis towards growing y.
    """

    along: Field
    across: Field
    angle: Field


def draw_slide(seed: int, case: int) -> Slide:
    """Draw one slide.

    Args:
        seed: Seed of the archive, 0 or more.
        case: Number of the case, 0 or more.
    """
    rng = np.random.default_rng([seed, case])
    tissue = _outline(rng)
    tumour = _tumour(rng, tissue)
    fibres = _fibres(rng, tissue.shape)
    eosin, clear = _stroma(rng, fibres)
    benign = draw_benign(rng, tissue, tumour)
    haze = 0.06 + benign.haze
    eosin = eosin * (1 - 0.45 * benign.cover)
    clear = np.maximum(clear * (1 - benign.cover), benign.clear)

    carcinoma = _carcinoma(rng, tumour, fibres)
    inside = carcinoma.cover * (1 - benign.cover)
    haze += carcinoma.haze * inside
    eosin *= 1 - 0.3 * inside
    clear = np.maximum(clear * (1 - inside), carcinoma.clear * (1 - benign.cover))

    fat, wall = _fat(rng, tissue, tumour, benign.cover)
    nuclei = Ellipses.join([_fibroblasts(rng, tissue, fibres), benign.nuclei, carcinoma.nuclei])
    nuclei = nuclei.where(~_at(fat > 0.5, nuclei) & _at(tissue, nuclei))
    haematoxylin = haze + stamp(tissue.shape, nuclei)
    haematoxylin = 1.5 * (1 - np.exp(-haematoxylin / 1.5))  # nuclei that overlap do not add up without limit

    open_space = (1 - fat) * (1 - np.clip(clear, 0, 1))
    solid = ndimage.gaussian_filter(tissue.astype(np.float32), 0.8)
    haematoxylin = (haematoxylin * open_space + 0.10 * wall) * solid
    eosin = (eosin * open_space + 0.38 * wall) * solid
    return Slide(_develop(rng, haematoxylin, eosin), tissue, tumour)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Field:
    """Return a smooth random field of the given shape: mean 0, deviation 1, features about `scale` pixels across."""
    step = max(scale / 3, 1.0)  # coarse at first, then enlarged: the cost does not grow with the scale
    coarse = rng.standard_normal([int(np.ceil(side / step)) + 2 for side in shape], dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, 0.35 * scale / step, mode="wrap")
    coarse = (coarse - coarse.mean()) / coarse.std()
    for axis, side in enumerate(shape):
        place = np.arange(side, dtype=np.float32) / np.float32(step)
        below = place.astype(int)
        part = np.expand_dims((place - below).astype(np.float32), 1 - axis)
        coarse = coarse.take(below, axis) * (1 - part) + coarse.take(below + 1, axis) * part
    return coarse


def _sample(field: Field, row: Field, column: Field) -> Field:
    """Interpolate a field at real positions; beyond its edge it repeats itself."""
    return ndimage.map_coordinates(field, [row, column], order=1, mode="grid-wrap", output=np.float32)


def _at(mask: Mask, nuclei: Ellipses) -> Mask:
    """Return the mask's value under each nucleus."""
    height, width = mask.shape
    return mask[np.clip(nuclei.y.astype(int), 0, height - 1), np.clip(nuclei.x.astype(int), 0, width - 1)]


def _outline(rng: np.random.Generator) -> Mask:
    """Draw the outline of the tissue; in some cases the slide's right or lower edge cuts it."""
    cells = rng.integers(12, 17, 2)
    # The rest makes patches at the edge smaller than 50 pixels: mostly 42 as in the archive, sometimes a sliver.
    rest = [int(rng.choice([42, int(rng.integers(1, 8)), int(rng.integers(8, 50))], p=[0.6, 0.12, 0.28])) for _ in "yx"]
    height, width = (int(50 * n) + r for n, r in zip(cells, rest, strict=True))
    cut = rng.random(2) < 0.08
    centre = np.where(cut, rng.uniform(0.54, 0.58, 2), rng.uniform(0.43, 0.46, 2))
    y = (np.arange(height, dtype=np.float32)[:, None] / height - centre[0]) / 0.5
    x = (np.arange(width, dtype=np.float32)[None, :] / width - centre[1]) / 0.5
    shape = (height, width)
    ragged = 0.16 * smooth_noise(rng, shape, 160) + 0.05 * smooth_noise(rng, shape, 40)
    ragged += 0.012 * smooth_noise(rng, shape, 9)
    radius = (np.abs(y) ** 2.6 + np.abs(x) ** 2.6) ** (1 / 2.6)
    tissue = radius + ragged < rng.uniform(0.78, 0.88)
    return ndimage.binary_opening(tissue, iterations=2)


def _tumour(rng: np.random.Generator, tissue: Mask) -> Mask:
    """Draw the tumour: one connected region, or two, of a share of the tissue that differs from case to case."""
    share = 0.0 if rng.random() < 0.1 else min(0.04 + rng.beta(0.9, 2.2), 0.8)
    field = 0.5 * smooth_noise(rng, tissue.shape, 150) + 0.2 * smooth_noise(rng, tissue.shape, 45)
    field += 0.03 * smooth_noise(rng, tissue.shape, 12)
    depth = ndimage.distance_transform_edt(tissue)
    inside = np.argwhere(depth >= min(40.0, depth.max()))
    foci = inside[rng.integers(len(inside), size=1 if rng.random() < 0.75 else 2)]
    if share == 0.0:
        return np.zeros_like(tissue)
    y, x = np.indices(tissue.shape, dtype=np.float32)
    field -= np.min([np.hypot(y - row, x - column) for row, column in foci], axis=0) / 110
    field[~tissue] = -np.inf
    region = field > np.quantile(field[tissue], 1 - share)
    pieces, count = ndimage.label(region)
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    size[0] = 0
    return np.isin(pieces, np.flatnonzero(size >= max(0.25 * size.max(), 1)))  # small pieces are no tumour


def _fibres(rng: np.random.Generator, shape: tuple[int, ...]) -> Fibres:
    """Draw the course of the fibres: a main direction, bent by smooth displacement."""
    y, x = np.indices(shape, dtype=np.float32)
    turn = np.float32(rng.uniform(0, np.pi))
    bend, wave = 30 * smooth_noise(rng, shape, 140), 2.2 * smooth_noise(rng, shape, 18)
    along = x * np.cos(turn) + y * np.sin(turn)
    across = y * np.cos(turn) - x * np.sin(turn) + bend + wave
    slope_y, slope_x = np.gradient(across)
    return Fibres(along, across, np.arctan2(-slope_x, slope_y))


def _stroma(rng: np.random.Generator, fibres: Fibres) -> tuple[Field, Field]:
    """Draw connective tissue: eosin in bundles along the fibres, and the clefts between them.

    Returns:
        Eosin (H, W) in optical density and the open share of each pixel (H, W) in 0 to 1.
    """
    grain = smooth_noise(rng, (512, 512), 3.0)
    fine = _sample(grain, fibres.across * 1.6, fibres.along * 0.25)
    bundle = _sample(grain, fibres.across * 0.5 + 200, fibres.along * 0.09)
    loose = smooth_noise(rng, fibres.along.shape, 110)
    eosin = 0.62 + 0.12 * fine + 0.10 * bundle - 0.07 * loose
    width = np.clip(0.055 + 0.05 * loose + rng.normal(0, 0.02), 0.0, 0.22)
    cleft = np.exp2(-((_sample(grain, fibres.across * 0.6 + 90, fibres.along * 0.09 + 300) / (width + 0.01)) ** 2))
    broken = _sample(grain, fibres.across * 0.2 + 400, fibres.along * 0.1 + 100) > 0.3
    return np.clip(eosin, 0.15, None), (0.8 * cleft * broken * (width > 0)).astype(np.float32)


def _fibroblasts(rng: np.random.Generator, tissue: Mask, fibres: Fibres) -> Ellipses:
    """Draw the spindle-shaped nuclei of connective tissue, along the fibres; cellular in places."""
    crowd = np.exp(1.0 * smooth_noise(rng, tissue.shape, 90)) * rng.uniform(0.006, 0.022)
    y, x = _scatter(rng, np.where(tissue, np.minimum(crowd, 0.06), 0), 0.06)
    angle = fibres.angle[y.astype(int), x.astype(int)] + rng.normal(0, 0.25, len(y))
    return Ellipses.of(y, x, rng.uniform(1.0, 1.9, len(y)), rng.uniform(0.45, 0.7, len(y)), angle, 0.75)


def _scatter(rng: np.random.Generator, rate: Field, highest: float) -> tuple[Field, Field]:
    """Draw points at random, `rate` (at most `highest`) a pixel; return y and x in pixels."""
    count = rng.poisson(rate.size * highest)
    y, x = rng.uniform(0, rate.shape[0], count), rng.uniform(0, rate.shape[1], count)
    kept = rng.uniform(0, highest, count) < rate[y.astype(int), x.astype(int)]
    return y[kept].astype(np.float32), x[kept].astype(np.float32)


@dataclass(frozen=True)
class Carcinoma:
    """Structures inside the tumour: nuclei, and (H, W) fields of the cells' cover, their haze and open lumens."""

    nuclei: Ellipses
    cover: Field
    haze: Field
    clear: Field


def _carcinoma(rng: np.random.Generator, tumour: Mask, fibres: Fibres) -> Carcinoma:
    """Draw invasive carcinoma: sheets, nests, cords and irregular tubules of crowded, unequal nuclei."""
    shape = tumour.shape
    grain = smooth_noise(rng, (512, 512), 3.0)
    nest = smooth_noise(rng, shape, rng.uniform(9, 15))
    cord = _sample(grain, fibres.across * rng.uniform(0.3, 0.42), fibres.along * rng.uniform(0.1, 0.2))
    cord = cord + 0.5 * smooth_noise(rng, shape, 6)
    tubule = smooth_noise(rng, shape, rng.uniform(9, 14))
    level = rng.uniform(0.7, 1.1)
    patterns = [  # each true where tumour cells lie
        smooth_noise(rng, shape, 7) > -1.0,
        nest > rng.uniform(-0.9, -0.2),
        np.abs(cord) < rng.uniform(0.42, 0.62),
        np.abs(tubule - level) < 0.5,
    ]
    taste = rng.normal(0, 0.8, len(patterns))  # one case is mostly cords, the next mostly sheets
    score = np.stack([smooth_noise(rng, shape, 130) + liking for liking in taste])
    choice = score.argmax(axis=0)
    cells = np.choose(choice, patterns) & tumour
    clear = np.where((choice == 3) & (tubule > level + 0.5) & tumour, 0.9, 0.0).astype(np.float32)
    cover = ndimage.gaussian_filter(cells.astype(np.float32), 0.9)

    crowd = rng.uniform(0.1, 0.15) * np.exp(0.3 * smooth_noise(rng, shape, 60))
    y, x = _scatter(rng, np.where(cells, np.minimum(crowd, 0.2), 0), 0.2)
    spread = rng.uniform(0.15, 0.3)  # how unequal the nuclei are
    size = rng.uniform(1.0, 1.18) * np.exp(rng.normal(0, spread, len(y)))
    ratio = np.exp(np.abs(rng.normal(0, 0.35, len(y))))
    depth = rng.uniform(0.7, 1.05) * np.exp(rng.normal(0, 0.3, len(y)))
    nuclei = Ellipses.of(y, x, size * ratio**0.5, size / ratio**0.5, rng.uniform(0, np.pi, len(y)), depth)
    haze = np.full(shape, rng.uniform(0.05, 0.2), np.float32)
    return Carcinoma(nuclei, cover, haze, ndimage.gaussian_filter(clear, 0.6))


def _fat(rng: np.random.Generator, tissue: Mask, tumour: Mask, glands: Field) -> tuple[Field, Field]:
    """Draw fat: white cells with thin walls; little of it in the tumour, none in glands.

    Returns:
        The share of each pixel that is fat and the strength of the cells' walls there, both (H, W) in 0 to 1.
    """
    shape = tissue.shape
    field = smooth_noise(rng, shape, 120) + 0.35 * smooth_noise(rng, shape, 30) + rng.normal(-0.25, 0.45)
    field -= rng.uniform(1.0, 2.0) * ndimage.gaussian_filter(tumour.astype(np.float32), 6) + 4 * (glands > 0.1)
    pitch = rng.uniform(9.5, 13.5)
    y, x = np.meshgrid(np.arange(0, shape[0] + pitch, pitch), np.arange(0, shape[1] + pitch, pitch), indexing="ij")
    centre = np.stack([y, x], axis=-1).reshape(-1, 2)
    centre = centre + rng.normal(0, 0.27 * pitch, centre.shape)
    row, column = (np.clip(centre[:, i].astype(int), 0, shape[i] - 1) for i in range(2))
    chosen = field[row, column] > 0.25  # whole cells: the edge of fat follows their round outlines
    spots = np.argwhere(tissue & (ndimage.maximum_filter(field, int(pitch)) > 0.2))
    fat, wall = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    if len(spots) == 0:
        return fat, wall
    distance, nearest = cKDTree(centre).query(spots, k=2)
    gap = (distance[:, 1] - distance[:, 0]).astype(np.float32)
    lone = ~chosen[nearest[:, 1]]  # next to stroma a cell is round
    near = distance[:, 0].astype(np.float32)
    body = np.where(lone, np.clip(0.62 * pitch - near, 0, 1), 1.0) * chosen[nearest[:, 0]]
    fat[spots[:, 0], spots[:, 1]] = body
    wall[spots[:, 0], spots[:, 1]] = body * np.exp2(-((gap / 0.9) ** 2))
    return fat, wall


def _develop(rng: np.random.Generator, haematoxylin: Field, eosin: Field) -> NDArray[np.uint8]:
    """Turn stain into colour: optical density = amount times direction; the stain and the scanner differ by case."""
    vectors = np.array([HAEMATOXYLIN, EOSIN]) + rng.normal(0, [[0.05], [0.04]], (2, 3))
    vectors = np.clip(vectors, 0.03, None)
    vectors *= np.exp(rng.normal(0, [0.2, 0.22]))[:, None] / np.linalg.norm(vectors, axis=1, keepdims=True)
    texture = 1 + 0.12 * rng.standard_normal((2, *haematoxylin.shape), dtype=np.float32)
    thickness = 1 + 0.07 * smooth_noise(rng, haematoxylin.shape, 200)
    stain = np.stack([haematoxylin * 1.45, eosin * 1.05]) * texture * thickness
    stain = ndimage.gaussian_filter(stain, (0, *[rng.uniform(0.25, 0.5)] * 2))
    # Not a matrix product: its rounding may depend on the number of threads, and the bytes must not.
    amount = vectors.astype(np.float32)[..., None, None]
    density = amount[0] * stain[0] + amount[1] * stain[1]
    light = (rng.uniform(0.93, 0.975) + rng.normal(0, 0.006, 3)).astype(np.float32)
    contrast = rng.uniform(0.88, 1.15)
    colour = 255 * light[:, None, None] * np.exp(-contrast * density)
    colour += rng.normal(0, 1.2) + 1.5 * rng.standard_normal(colour.shape, dtype=np.float32)
    return np.ascontiguousarray(np.clip(np.rint(colour), 0, 255).astype(np.uint8).transpose(1, 2, 0))
