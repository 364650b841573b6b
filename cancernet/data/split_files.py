"""Read a split file: a CSV table that gives each case, or each patch, its part. Neither NumPy nor pandas is needed."""

import csv
import io
from pathlib import Path

from cancernet.errors import InputError, brief

SPLITS = ("case", "patch", "official", "extended")
"""Splits by name."""
EXAMPLE = "give a CSV file whose first line is case,part (or path,part), such as the split.csv of a run"


def find_split_file(split: str) -> Path | None:
    """Return the file that `data.split` names; None where it names a rule.

    Raises:
        InputError: It names neither.
    """
    if split in SPLITS:
        return None
    path = Path(split).expanduser()
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"data.split: no file {split}; {EXAMPLE}")
    raise InputError(
        f"data.split: unknown split {split!r}; use one of {', '.join(SPLITS)}, or the path of a CSV file "
        "with the columns case (or path) and part"
    )


def read_split_file(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """Read what a split file names.

    The separator is a comma or a semicolon; other columns are ignored.

    Returns:
        The column that names the rows, `path` or `case`, and a pair of name and part for each row.

    Raises:
        InputError: The file cannot be read, is empty, no CSV in UTF-8, or lacks a column.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {EXAMPLE}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); {EXAMPLE}") from error
    if not text.strip():
        raise InputError(f"{path}: is empty; {EXAMPLE}")
    first = text.lstrip("\r\n").partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    try:
        filled = (row for row in rows if row)
        names = next(filled)
        key = "path" if "path" in names else "case"
        if "part" not in names or key not in names:
            found = brief(", ".join(names))
            raise InputError(f"{path}: columns part and case (or path) are needed, found {found}; {EXAMPLE}")
        named, part = names.index(key), names.index("part")
        pairs = [(row[named], row[part]) for row in filled]
    except (csv.Error, IndexError) as error:
        raise InputError(f"{path}, line {rows.line_num}: cannot be read as CSV ({error}); correct it") from error
    if not pairs:
        raise InputError(f"{path}: names no {key}; {EXAMPLE}")
    return key, pairs
