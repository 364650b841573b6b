"""What an archive holds, against what the full one must hold: the table that `prepare` prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cancernet.data.archive.listing import show
from cancernet.data.store.store import SYNTHETIC, PatchStore, find_store, find_synthetic, pack, read_manifest
from cancernet.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

FULL_ARCHIVE = {
    "patches": 277_524,
    "cases": 279,
    "idc": 78_786,
    "benign": 198_738,
    "prevalence": 78_786 / 277_524,
    "duplicates": 277_524,
}
"""What the Kaggle archive holds, the tree that stands twice counted once."""

LISTED_REJECTS = 20
"""Rejects shown on the terminal; the manifest has them all."""


@dataclass(frozen=True)
class Audit:
    """Counts of a store.

    `edge_patches` are smaller than 50x50 and were padded; `duplicates` are further copies of a file, counted once;
    `identical_images` are patches whose pixels equal those of another one before them; `prevalence` is the fraction of
    IDC among the patches; `rejects_by_reason` counts what is left out, `rejects` lists it as (path, reason).
    """

    name: str
    synthetic: bool
    patches: int
    cases: int
    idc: int
    benign: int
    prevalence: float
    edge_patches: int
    duplicates: int
    identical_images: int
    rejects_by_reason: dict[str, int]
    rejects: tuple[tuple[str, str], ...]

    @property
    def full(self) -> bool:
        """Whether these are the patches of the full archive; its second tree may be there or not."""
        counts = ("patches", "cases", "idc", "benign")
        return not self.synthetic and all(getattr(self, name) == FULL_ARCHIVE[name] for name in counts)

    @property
    def share(self) -> float:
        """Patches as a fraction of the full archive's."""
        return self.patches / FULL_ARCHIVE["patches"]

    @property
    def verdict(self) -> str:
        """One sentence: the full archive, a part of it, or none."""
        if self.synthetic:
            return "SYNTHETIC: drawn by a program, no tissue; results on it say nothing about cancer"
        if self.full:
            return "this is the full archive"
        if self.patches == FULL_ARCHIVE["patches"]:
            return "this is not the full archive: as many patches, but of other cases or classes"
        return f"this is not the full archive: {100 * self.share:.1f} % of its patches"


def audit(store: PatchStore) -> Audit:
    """Read the counts of a store from its manifest, where packing has put them.

    Raises:
        InputError: Where the manifest lacks them.
    """
    try:
        counts = dict(store.manifest["audit"])
        reasons = counts.pop("rejects")
        rejects = tuple((reject["path"], reject["reason"]) for reject in store.manifest["rejects"])
        return Audit(store.name, store.synthetic, **counts, rejects_by_reason=reasons, rejects=rejects)
    except (KeyError, TypeError) as error:
        raise InputError(f"{store.path} has a manifest without counts ({error}): pack the archive again") from error


def render(audit: Audit) -> "RenderableType":
    """Lay the audit out as a table for the terminal, with the verdict and the first rejects."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(audit.name + (" (SYNTHETIC)" if audit.synthetic else "")), box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading in ("here", "full archive"):
        table.add_column(heading, justify="right")
    for label, name in (
        ("patches", "patches"),
        ("cases", "cases"),
        ("IDC", "idc"),
        ("benign", "benign"),
        ("prevalence", "prevalence"),
        ("duplicates (further copies, counted once)", "duplicates"),
        ("edge patches (below 50x50, padded)", "edge_patches"),
        ("identical images (equal to one before)", "identical_images"),
    ):
        table.add_row(label, _figure(getattr(audit, name)), _figure(FULL_ARCHIVE.get(name)))
    table.add_row("rejects (left out)", _figure(len(audit.rejects)), "")
    for reason, count in audit.rejects_by_reason.items():
        table.add_row(Text(f"  {reason}"), _figure(count), "")
    lines = [Text(f"  {show(path)}: {reason}") for path, reason in audit.rejects[:LISTED_REJECTS]]
    if len(audit.rejects) > LISTED_REJECTS:
        lines.append(Text(f"  and {len(audit.rejects) - LISTED_REJECTS:,} more, all in the store's manifest.json"))
    if lines:
        lines.insert(0, Text("left out:"))
    return Group(table, *lines, Text(audit.verdict))


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def prepare(archive: str, output: Path | None = None, cache: Path | None = None, workers: int | None = None) -> int:
    """Pack an archive, or check the store it already has, and print the audit; the last line is the store's path.

    Args:
        archive: A zip, a folder, a CSV table, a packed store, or "synthetic".
        output: The store's folder; None keeps it in the cache.
        cache: The cache folder; None takes the user's.
        workers: Packing processes; None takes all cores.

    Returns:
        The exit status, 0.

    Raises:
        InputError: Where the archive, the output or an existing store cannot be used.
    """
    from rich.console import Console

    if output is None:
        store = find_store(archive, cache, workers)
    elif read_manifest(Path(archive)) is not None:
        raise InputError(f"{archive} is a packed store already: leave out the output, or give the archive itself")
    else:
        store = pack(find_synthetic(cache) if archive == SYNTHETIC else archive, output, workers)
    if not store.fresh:
        store.verify()
    Console().print(render(audit(store)))
    print(store.path.resolve())
    return 0
