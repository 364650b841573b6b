"""Draw the benign structures of synthetic slides: lobules, ducts, adenosis, filled ducts, lymphoid aggregates.

Benign tissue is ordered: equal nuclei at equal distances, in rings around a lumen or packed within a smooth outline.
Adenosis, filled ducts and lymphoid aggregates are as dark as carcinoma on purpose: colour does not tell them apart.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cancernet.data.synthetic.ellipses import Ellipses, Field, Mask, stamp

Reals = NDArray[np.floating]


@dataclass(frozen=True)
class Benign:
    """Benign structures of a slide.

    Attributes:
        nuclei: Their nuclei.
        cover: (H, W), 0 to 1, the share of the stroma that they replace.
        haze: (H, W), haematoxylin between the nuclei in optical density.
        clear: (H, W), 0 to 1, open lumens.
    """

    nuclei: Ellipses
    cover: Field
    haze: Field
    clear: Field


@dataclass(frozen=True)
class Structure:
    """One benign structure: its nuclei, the ellipses that it covers, and its lumens."""

    nuclei: Ellipses
    cover: Ellipses
    lumens: Ellipses


def draw_benign(rng: np.random.Generator, tissue: Mask, tumour: Mask) -> Benign:
    """Draw the benign structures of a slide; few of them lie inside the tumour."""
    area = tissue.sum() / 2500  # in patches
    kinds = {_lobule: 0.055, _adenosis: 0.02, _ducts: 0.045, _filled: 0.03, _lymphoid: 0.035}
    inside = np.argwhere(tissue)
    parts = []
    for kind, rate in kinds.items():
        # A case may have hardly any of a kind, or a lot: dense benign tissue varies as much as tumours do.
        for y, x in inside[rng.integers(len(inside), size=rng.poisson(area * rate * rng.gamma(1.5, 1 / 1.5)))]:
            around = tumour[max(y - 30, 0) : y + 30, max(x - 30, 0) : x + 30]
            if around.any() and rng.random() < 0.9:
                continue
            parts.append(kind(rng, float(y), float(x)))
    cover = np.clip(stamp(tissue.shape, Ellipses.join([part.cover for part in parts])), 0, 1)
    clear = np.clip(stamp(tissue.shape, Ellipses.join([part.lumens for part in parts])), 0, 1)
    return Benign(Ellipses.join([part.nuclei for part in parts]), cover, 0.12 * cover, clear)


def _lattice(rng: np.random.Generator, radius: float, pitch: float, jitter: float) -> tuple[Field, Field]:
    """Draw a disturbed hexagonal lattice within a round, slightly wavy outline; return y and x about its centre."""
    count = int(radius * 1.3 / pitch) + 1
    j, i = np.mgrid[-count : count + 1, -count : count + 1].astype(np.float32)
    x, y = (pitch * (i + 0.5 * (j % 2))).ravel(), (pitch * 0.87 * j).ravel()
    turn = rng.uniform(0, np.pi)
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    x, y = x + rng.normal(0, jitter * pitch, x.size), y + rng.normal(0, jitter * pitch, y.size)
    around = np.arctan2(y, x)
    edge = radius * (1 + 0.12 * np.cos(2 * around + rng.uniform(0, 6)) + 0.1 * np.cos(3 * around + rng.uniform(0, 6)))
    kept = np.hypot(x, y) < edge
    return y[kept].astype(np.float32), x[kept].astype(np.float32)


def _ring(rng: np.random.Generator, y: Reals, x: Reals, radius: Reals, pitch: float) -> tuple[Reals, ...]:
    """Place points at equal distances on circles; return y, x and the direction from each circle's centre."""
    count = np.maximum(np.rint(2 * np.pi * radius / pitch), 4).astype(int)
    circle = np.repeat(np.arange(len(count)), count)
    order = np.arange(len(circle)) - np.repeat(np.cumsum(count) - count, count)
    around = (
        2 * np.pi * order / count[circle] + rng.normal(0, 0.06, len(circle)) + rng.uniform(0, 6, len(count))[circle]
    )
    r = radius[circle] * (1 + rng.normal(0, 0.05, len(circle)))
    return y[circle] + r * np.sin(around), x[circle] + r * np.cos(around), around


def _acini(rng: np.random.Generator, y: float, x: float, radius: float, size: float) -> Structure:
    """Draw a cluster of small round glands, each a ring of nuclei around a small lumen."""
    down, right = _lattice(rng, radius, 2 * size + 1.6, 0.1)
    row, column = y + down, x + right
    each = size * np.exp(rng.normal(0, 0.1, len(row))).astype(np.float32)
    ny, nx, around = _ring(rng, row, column, each - 0.6, 2.0)
    nuclei = Ellipses.of(ny, nx, 1.1, 0.8, around, 0.85)
    tilt = rng.uniform(0, np.pi, len(row))
    lumens = Ellipses.of(row, column, np.maximum(each - 2.2, 0.6), np.maximum(each - 2.6, 0.5), tilt, 0.6)
    return Structure(nuclei, Ellipses.of(y, x, radius * 1.1, radius * 1.1, 0, 0.8), lumens)


def _lobule(rng: np.random.Generator, y: float, x: float) -> Structure:
    """Draw a lobule."""
    return _acini(rng, y, x, rng.uniform(14, 40), rng.uniform(2.8, 4.4))


def _adenosis(rng: np.random.Generator, y: float, x: float) -> Structure:
    """Draw adenosis: a large field of crowded small glands, dark but regular."""
    return _acini(rng, y, x, rng.uniform(45, 110), rng.uniform(1.9, 2.6))


def _ducts(rng: np.random.Generator, y: float, x: float) -> Structure:
    """Draw one to three ducts: two rows of nuclei around an open lumen, folded a little."""
    count = int(rng.integers(1, 4))
    row, column = y + rng.normal(0, 22, count), x + rng.normal(0, 22, count)
    radius = rng.uniform(6, 20, count)
    inner, outer = (_ring(rng, row, column, radius + step, pitch) for step, pitch in ((0.0, 1.9), (2.0, 3.0)))
    nuclei = [
        Ellipses.of(*inner[:2], 1.25, 0.8, inner[2], 0.9),
        Ellipses.of(*outer[:2], 1.2, 0.6, outer[2] + np.pi / 2, 0.8),
    ]
    cover = Ellipses.of(row, column, radius + 6, radius + 6, 0, 0.7)
    return Structure(Ellipses.join(nuclei), cover, Ellipses.of(row, column, radius - 2.5, radius - 2.5, 0, 0.95))


def _filled(rng: np.random.Generator, y: float, x: float) -> Structure:
    """Draw a group of ducts filled with equal cells, each set off from the stroma by a thin gap."""
    parts: list[Structure] = []
    placed: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(2, 9))):
        row, column, radius = y + rng.normal(0, 28), x + rng.normal(0, 28), rng.uniform(7, 19)
        if any(np.hypot(row - a, column - b) < 1.25 * (radius + c) + 3 for a, b, c in placed):
            continue
        placed.append((row, column, radius))
        down, right = _lattice(rng, radius, rng.uniform(2.6, 3.1), 0.17)
        size = rng.uniform(0.9, 1.1) * np.exp(rng.normal(0, 0.08, len(down)))
        nuclei = Ellipses.of(row + down, column + right, size * 1.08, size, rng.uniform(0, np.pi, len(down)), 0.85)
        around = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        rim = 1.2 * radius + 1
        gap = Ellipses.of(row + rim * np.sin(around), column + rim * np.cos(around), 2, 0.8, around + np.pi / 2, 0.3)
        parts.append(Structure(nuclei, Ellipses.of(row, column, radius * 1.15, radius * 1.15, 0, 0.9), gap))
    return Structure(
        *[Ellipses.join([getattr(part, name) for part in parts]) for name in ("nuclei", "cover", "lumens")]
    )


def _lymphoid(rng: np.random.Generator, y: float, x: float) -> Structure:
    """Draw an aggregate of lymphocytes: small, round, dark, equal, thinning out at its edge."""
    radius = rng.uniform(18, 60)
    down, right = _lattice(rng, radius, rng.uniform(2.1, 2.8), 0.32)
    kept = rng.random(len(down)) < 1.35 - np.hypot(down, right) / radius
    down, right = down[kept], right[kept]
    size = rng.uniform(0.72, 0.9) * np.exp(rng.normal(0, 0.08, len(down)))
    nuclei = Ellipses.of(y + down, x + right, size * 1.04, size, rng.uniform(0, np.pi, len(down)), 1.05)
    return Structure(nuclei, Ellipses.of(y, x, radius, radius, 0, 0.5), Ellipses.join([]))
