"""Index tables of stores, made without images."""

import numpy as np
import pandas as pd


def draw_index(cases: list[str], patches: int = 20, seed: int = 0, blanks: int = 0) -> pd.DataFrame:
    """An index of `patches` patches a case, with random prevalence a case and, in each case, `blanks` equal images."""
    random = np.random.default_rng(seed)
    frames = []
    for case in cases:
        label = (random.random(patches) < random.random()).astype(np.int8)
        label[:2] = (0, 1)
        x = 1 + 50 * np.arange(patches, dtype=np.int32)
        image = random.integers(1, 2**63, patches, dtype=np.uint64)
        image[:blanks] = 7
        path = [f"{case}/{k}/{case}_idx5_x{at}_y1_class{k}.png" for at, k in zip(x, label, strict=True)]
        columns = {"path": path, "case": case, "label": label, "x": x, "y": np.int32(1), "hash": image}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def names(count: int) -> list[str]:
    return [str(10000 + number) for number in range(count)]
