"""List the patches of a CSV table: path, label, case and, where known, x and y."""

import csv
import hashlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cancernet.data.archive.listing import SYNTHETIC_MARK, Listing, Reject, show
from cancernet.data.archive.scan import size_problem
from cancernet.errors import InputError

REQUIRED = ("path", "label", "case")
CONTRADICTED = "two rows for one path contradict each other"


@dataclass(order=True)
class _Row:
    case: str
    y: int
    x: int
    path: str
    label: int
    file: str


def list_table(table: Path) -> Listing:
    """List the patches of a CSV table.

    Columns `path` (relative to the table's folder, or absolute), `label` (1 IDC, 0 benign) and `case` are required;
    `x` and `y` (whole pixels) may be absent or blank. The separator is a comma or a semicolon. A row that cannot be
    used is a reject; a path in two rows counts once, and not at all where the rows contradict each other.

    The fingerprint is the hash of the table's bytes and of its files' sizes and times.

    Raises:
        InputError: The table cannot be read as UTF-8 or lacks a required column.
    """
    try:
        data = table.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}): check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 text (byte {error.start}): save the table as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    missing = [name for name in REQUIRED if name not in reader.fieldnames]
    if missing:
        found = show(", ".join(reader.fieldnames)) or "none"
        raise InputError(f"{table} lacks the column {', '.join(missing)}; its first line must name path, label, case"
                         f" and may name x, y (found: {found})")  # fmt: skip
    try:
        return _list_rows(table, reader, hashlib.blake2b(data))
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}, cannot be read as CSV ({error}): correct it") from error


def _list_rows(table: Path, reader: "csv.DictReader[str]", fingerprint: "hashlib.blake2b") -> Listing:
    rows: dict[str, _Row] = {}
    rejects: list[Reject] = []
    contradicted: set[str] = set()
    duplicates: dict[str, int] = {}
    for fields in reader:
        row = _read_row(table.parent, fields, fingerprint)
        if isinstance(row, Reject):
            rejects.append(Reject(row.path or f"line {reader.line_num}", row.reason))
        elif row.file not in rows:
            rows[row.file] = row
        elif (row.case, row.label, row.x, row.y) == _facts(rows[row.file]):
            duplicates[row.file] = duplicates.get(row.file, 0) + 1
        else:
            contradicted.add(row.file)
            rejects.append(Reject(row.path, CONTRADICTED))
    for file in contradicted:
        lost = rows.pop(file)
        count = 1 + duplicates.pop(file, 0)
        rejects.extend([Reject(lost.path, CONTRADICTED)] * count)
    ordered = sorted(rows.values())
    return Listing(
        source=table,
        kind="csv",
        fingerprint=fingerprint.hexdigest(),
        synthetic=_any_synthetic({Path(row.file).parent for row in ordered} | {table.parent.resolve()}),
        path=[row.path for row in ordered],
        case=[row.case for row in ordered],
        label=np.array([row.label for row in ordered], np.int8),
        x=np.array([row.x for row in ordered], np.int32),
        y=np.array([row.y for row in ordered], np.int32),
        place=[row.file for row in ordered],
        duplicates=sum(duplicates.values()),
        rejects=rejects,
    )


def _facts(row: _Row) -> tuple[str, int, int, int]:
    return row.case, row.label, row.x, row.y


def _read_row(folder: Path, fields: dict[str, str], fingerprint: "hashlib.blake2b") -> "_Row | Reject":
    """Read one row and the size and time of its file."""
    # A short line leaves None in the fields it lacks.
    path, label, case, x, y = ((fields.get(name) or "").strip() for name in (*REQUIRED, "x", "y"))
    shown = show(path)
    if not path:
        return Reject("", "row without a path")
    if label not in ("0", "1", "0.0", "1.0"):
        return Reject(shown, "label is neither 0 nor 1")
    if not case:
        return Reject(shown, "row without a case")
    position = _read_position(x, y)
    if position is None:
        return Reject(shown, "x and y are not whole pixels from 0")
    try:
        # Strings: resolving a Path for each row of a large table takes longer than listing its files.
        file = os.path.abspath(os.path.join(folder, path))  # noqa: PTH100, PTH118
        status = os.stat(file)  # noqa: PTH116
    except (OSError, ValueError):  # no such file, a ring of links, or a name with a zero byte
        return Reject(shown, "file does not exist")
    fingerprint.update(f"{status.st_size}\0{status.st_mtime_ns}\n".encode())
    if not stat.S_ISREG(status.st_mode):
        return Reject(shown, "no file")
    problem = size_problem(status.st_size)
    if problem is not None:
        return Reject(shown, problem)
    return _Row(show(case), position[1], position[0], shown, int(label[0]), file)


def _read_position(x: str, y: str) -> tuple[int, int] | None:
    """Read a position in pixels; (-1, -1) where blank, None where it is not a pair of whole numbers from 0."""
    if x in ("", "-1") and y in ("", "-1"):
        return -1, -1
    try:
        values = float(x), float(y)
    except ValueError:
        return None
    if not all(value.is_integer() and 0 <= value < 2**31 for value in values):
        return None
    return int(values[0]), int(values[1])


def _any_synthetic(folders: set[Path]) -> bool:
    """Look for the mark next to the patches and up to two folders above: the archive's top is above case and class."""
    around = {above for folder in folders for above in (folder, *list(folder.parents)[:2])}
    return any((folder / SYNTHETIC_MARK).exists() for folder in around)
