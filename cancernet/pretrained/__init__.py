"""The trained model that comes with the package, for those who bring an image and no archive.

A checkpoint like any other: weights in half precision, calibration, and the record of the cases that trained it.
Its model card lies beside it. `scripts/include` makes both, and computes the card's figures again. No torch here.
"""

from pathlib import Path

INCLUDED = "idc-residual-2026-11-30"
"""Name of the model: data, network and the day it was trained. It may be given wherever a checkpoint is asked for."""
FOLDER = Path(__file__).parent
RESULTS = Path("lightning_logs", INCLUDED)
"""Its run folder: nothing is written into the package."""


def locate(checkpoint: str | Path) -> Path:
    """Return the file of a checkpoint, which is given as a path or as the name of the included model.

    A file of that name in the current folder takes precedence. Whether there is such a file is not looked at.

    >>> locate("last.ckpt").name, locate(INCLUDED).name
    ('last.ckpt', 'idc-residual-2026-11-30.ckpt')
    """
    path = Path(checkpoint).expanduser()
    return FOLDER / f"{INCLUDED}.ckpt" if str(checkpoint) == INCLUDED and not path.exists() else path


def is_included(checkpoint: str | Path) -> bool:
    """Tell whether a path or name is that of the included model."""
    return locate(checkpoint).resolve().parent == FOLDER.resolve()


def is_checkpoint(word: str | Path) -> bool:
    """Tell by the ending whether a word of the user's means a checkpoint; the name of the included model does.

    >>> is_checkpoint("last.ckpt"), is_checkpoint(INCLUDED), is_checkpoint("slide.svs")
    (True, True, False)
    """
    return locate(word).suffix == ".ckpt"
