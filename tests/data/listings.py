from pathlib import Path

from cancernet.data.archive.listing import Listing
from cancernet.data.archive.source import Source


def list_archive(root: Path) -> Listing:
    return Source(root).list_patches()
