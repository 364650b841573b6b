from cancernet.data.archive.listing import Listing
from cancernet.data.archive.source import Root, Source


def list_archive(root: Root) -> Listing:
    return Source(root).list_patches()
