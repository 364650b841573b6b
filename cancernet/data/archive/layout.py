"""Understand how an archive is laid out: what says the class and the case of an image.

Names as Kaggle's say both. Otherwise folders do: those named benign and malignant, 0 and 1 and the like say the class,
and the first other folder that not all images share says the case. Where the images of one slide lie in several folders
below that, it is still one case, so that no split can tear it apart.
"""

import re
from collections import defaultdict
from collections.abc import Collection
from itertools import takewhile
from typing import NamedTuple

UNLABELLED = -1
"""Label of a patch whose class is not known."""
UNKNOWN_CASE = ""
"""Case of a patch whose case is not known."""

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
CLASS_WORDS = {
    **dict.fromkeys(("0", "class-0", "class0", "benign", "non-idc", "nonidc", "no-idc", "negative", "normal"), 0),
    **dict.fromkeys(("1", "class-1", "class1", "malignant", "idc", "positive", "tumor", "tumour"), 1),
}
"""What stands for a class, in lower case and with hyphens: 1 IDC, 0 benign."""
_NO_CASES = {
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "testing",
    "image",
    "images",
    "patches",
    "tiles",
}
_KAGGLE = re.compile(
    r"(?P<case>[^/]+)_idx\d+_x(?P<x>\d{1,9})_y(?P<y>\d{1,9})_class(?P<label>[01])\.(?:png|jpe?g|tiff?|bmp|webp)",
    re.I | re.A,
)


class KaggleName(NamedTuple):
    """What a name of the archive's form says: case, position in pixels of the slide, label."""

    case: str
    y: int
    x: int
    label: int


def parse_name(name: str) -> KaggleName | None:
    """Read a name of the archive's form; None for any other.

    >>> parse_name("8863_idx5_x51_y1001_class0.png")
    KaggleName(case='8863', y=1001, x=51, label=0)
    """
    match = _KAGGLE.fullmatch(name)
    return match and KaggleName(match["case"], int(match["y"]), int(match["x"]), int(match["label"]))


def read_class(word: str) -> int | None:
    """Return the class that a word stands for; None where it stands for none.

    >>> read_class("Non_IDC"), read_class("malignant"), read_class("8863")
    (0, 1, None)
    """
    return CLASS_WORDS.get(_plain(word))


def _plain(name: str) -> str:
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


class Folders:
    """What the folders of an archive's images say.

    Attributes:
        label: Folder -> class of its images, 0 or 1; empty where the folders do not name both classes.
        case: Folder -> case of its images, `UNKNOWN_CASE` where it says none.
        words: The first name met for each class.

    >>> folders = Folders(["cohort/benign/p1", "cohort/malignant/p1", "cohort/malignant/p2"])
    >>> folders.label["cohort/benign/p1"], folders.case["cohort/malignant/p2"]
    (0, 'p2')
    """

    def __init__(self, folders: Collection[str]) -> None:
        paths = {folder: tuple(filter(None, folder.split("/"))) for folder in folders}
        numbers: dict[int, set[str]] = defaultdict(set)
        for path in paths.values():
            for depth, name in enumerate(reversed(path)):
                if name.isdecimal():
                    numbers[depth].add(name)
        # Folders 0 and 1 name classes where no other number stands next to them, or they would be the cases 0 and 1.
        self._binary = {depth for depth, names in numbers.items() if names == {"0", "1"}}
        self.label: dict[str, int] = {}
        self.words: dict[int, str] = {}
        for folder, path in sorted(paths.items()):
            named = next((name for depth, name in enumerate(reversed(path)) if self._names_class(name, depth)), None)
            if named is not None:
                self.label[folder] = label = CLASS_WORDS[_plain(named)]
                self.words.setdefault(label, named)
        if len(self.words) < 2:  # a folder IDC alone may as well be the name of the whole
            self.label, self.words = {}, {}
        shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*paths.values(), strict=False)))
        self.case = {folder: self._find_case(path, shared) for folder, path in paths.items()}

    def describe(self, cases: Collection[str]) -> str:
        """Say where the classes and these cases come from."""
        known = sorted(set(cases) - {UNKNOWN_CASE})
        label = f"class from folders {self.words[0]}/{self.words[1]}" if self.words else "class unknown"
        if not known:
            return f"{label}, case unknown"
        return f"{label}, case from folders ({len(known):,}, such as {known[0]})"

    def _names_class(self, name: str, depth: int) -> bool:
        return _plain(name) in CLASS_WORDS and (not name.isdecimal() or depth in self._binary)

    def _find_case(self, path: tuple[str, ...], shared: int) -> str:
        for place in range(shared, len(path)):
            name = path[place]
            if not self._names_class(name, len(path) - 1 - place) and _plain(name) not in _NO_CASES:
                return name
        return UNKNOWN_CASE
