"""List the patches of a CSV table: a path and, where known, label, case, x and y."""

import csv
import hashlib
import io
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from cancernet.data.archive.layout import UNKNOWN_CASE, UNLABELLED, parse_name, read_class
from cancernet.data.archive.listing import SYNTHETIC_MARK, Listing, Reject, show
from cancernet.data.archive.scan import size_problem
from cancernet.errors import InputError

TABLE_ENDINGS = (".csv", ".tsv")
SYNONYMS = {
    "path": (
        "path",
        "image_path",
        "filepath",
        "file_path",
        "image",
        "img",
        "img_path",
        "filename",
        "file_name",
        "file",
    ),
    "label": ("label", "target", "class", "diagnosis", "ground_truth", "idc"),
    # Patients before slides: what one patient's slides share must not stand in two parts of a split.
    "case": ("case", "case_id", "patient", "patient_id", "patientid", "subject", "subject_id", "slide", "slide_id"),
    "x": ("x", "x_coord", "coord_x"),
    "y": ("y", "y_coord", "coord_y"),
}
"""What a table tells -> names of the column that holds it, in lower case; the first that is there counts."""
CONTRADICTED = "two rows for one path contradict each other"


@dataclass(order=True)
class _Row:
    case: str
    y: int
    x: int
    path: str
    label: int
    file: str


def list_table(table: Path, columns: Mapping[str, str] | None = None) -> Listing:
    """List the patches of a CSV table.

    A column for the path (relative to the table's folder, or absolute) is required. Labels are 1 or IDC, 0 or benign,
    or another of `layout.CLASS_WORDS`. Label and case may be absent; names of Kaggle's form then tell them. x and y
    (whole pixels) may be absent or blank. Columns are separated by commas, semicolons or tabs. A row that cannot be
    used is a reject; a path in two rows counts once, and not at all where the rows contradict each other.

    The fingerprint is the hash of the table's bytes, the given columns and its files' sizes and times.

    Args:
        table: The file, UTF-8 or (as some spreadsheets save text) UTF-16, with or without a byte-order mark.
        columns: Of path, label, case, x, y those whose column has a name that is not in `SYNONYMS`.

    Raises:
        InputError: The table cannot be read as text, or lacks a required or a named column.
    """
    try:
        data = table.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}): check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not UTF-8 text (byte {error.start}): save the table as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    fingerprint = hashlib.blake2b(data)
    fingerprint.update(repr(sorted((columns or {}).items())).encode())
    try:
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        chosen = _choose_columns(table, reader.fieldnames, columns or {})
        return _list_rows(table, reader, chosen, fingerprint)
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}, cannot be read as CSV ({error}): correct it") from error


def _choose_columns(table: Path, there: "list[str]", given: Mapping[str, str]) -> dict[str, str]:
    """Return which column holds what, as far as there is one."""
    unknown = sorted(set(given) - set(SYNONYMS))
    if unknown:
        raise InputError(f"data.columns: {unknown[0]!r} is none of {', '.join(SYNONYMS)}")
    found = show(", ".join(there)) or "none"
    chosen: dict[str, str] = {}
    for meaning, names in SYNONYMS.items():
        named = given.get(meaning)
        if named is not None and named.strip().lower() not in there:
            raise InputError(f"{table} has no column {named!r} for the {meaning} (found: {found})")
        for name in names if named is None else (named.strip().lower(),):
            if name in there:
                chosen.setdefault(meaning, name)
    if "path" not in chosen:
        raise InputError(f"{table} lacks the column path; its first line must name path and may name label, case, x, y"
                         f" (found: {found}), or --data.columns.path says which it is")  # fmt: skip
    return chosen


def _list_rows(
    table: Path, reader: "csv.DictReader[str]", columns: dict[str, str], fingerprint: "hashlib.blake2b"
) -> Listing:
    rows: dict[str, _Row] = {}
    rejects: list[Reject] = []
    contradicted: set[str] = set()
    duplicates: dict[str, int] = {}
    for fields in reader:
        # A short line leaves None in the fields it lacks.
        said = {meaning: (fields.get(name) or "").strip() for meaning, name in columns.items()}
        row = _read_row(table.parent, said, fingerprint)
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
        layout=", ".join(f"{meaning} from column {name}" for meaning, name in columns.items()),
    )


def _facts(row: _Row) -> tuple[str, int, int, int]:
    return row.case, row.label, row.x, row.y


def _read_row(folder: Path, said: dict[str, str], fingerprint: "hashlib.blake2b") -> "_Row | Reject":
    """Read one row and the size and time of its file."""
    path, x, y = said["path"], said.get("x", ""), said.get("y", "")
    shown = show(path)
    if not path:
        return Reject("", "row without a path")
    name = parse_name(path.replace("\\", "/").rpartition("/")[2])
    label = (UNLABELLED if name is None else name.label) if "label" not in said else _read_label(said["label"])
    if label is None:
        return Reject(shown, "label is neither 0 nor 1, nor IDC, benign or the like")
    case = said.get("case", UNKNOWN_CASE if name is None else name.case)
    if not case and "case" in said:
        return Reject(shown, "row without a case")
    position = _read_position(x, y) if {"x", "y"} & said.keys() or name is None else (name.x, name.y)
    if position is None:
        return Reject(shown, "x and y are not whole pixels from 0")
    found = _find_file(folder, path)
    if found is None:
        return Reject(shown, "file does not exist")
    file, status = found
    fingerprint.update(f"{status.st_size}\0{status.st_mtime_ns}\n".encode())
    if not stat.S_ISREG(status.st_mode):
        return Reject(shown, "no file")
    problem = size_problem(status.st_size)
    if problem is not None:
        return Reject(shown, problem)
    return _Row(show(case), position[1], position[0], shown, label, file)


def _read_label(text: str) -> int | None:
    """Read a label: 1, 0, the same as fractions, or a word for a class; blank is unlabelled, None anything else."""
    if not text:
        return UNLABELLED
    return read_class(text.removesuffix(".0"))


def _find_file(folder: Path, path: str) -> tuple[str, os.stat_result] | None:
    """Find the file of a row, whose path another system may have written; return its own path and its status."""
    candidates = [path]
    if "\\" in path:
        windows = PureWindowsPath(path)
        # Of a path on another machine's drive, the end may lie next to the table.
        starts = range(1, len(windows.parts)) if windows.anchor else [0]
        candidates += ["/".join(windows.parts[start:]) for start in starts]
    for candidate in candidates:
        try:
            # Strings: resolving a Path for each row of a large table takes longer than listing its files.
            file = os.path.abspath(os.path.join(folder, candidate))  # noqa: PTH100, PTH118
            return file, os.stat(file)  # noqa: PTH116
        except (OSError, ValueError):  # no such file, a ring of links, or a name with a zero byte
            continue
    return None


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
