"""Tiny archives for the tests: patches of noise in the layout of the real one, with each of its traps."""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def draw_png(seed: int, width: int = 50, height: int = 50) -> bytes:
    """Draw RGB noise as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return encode(Image.fromarray(pixels))


def encode(image: Image.Image, kind: str = "PNG", **options: str) -> bytes:
    """Write an image into bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def patch_path(case: str, x: int, y: int, label: int) -> str:
    """Name a patch as the archive does, in its folders."""
    return f"{case}/{label}/{case}_idx5_x{x}_y{y}_class{label}.png"


def clean_files(cases: int = 2, columns: int = 3, rows: int = 2) -> dict[str, bytes]:
    """Draw whole cases: the last column of each is IDC."""
    files: dict[str, bytes] = {}
    for case in range(cases):
        for column in range(columns):
            for row in range(rows):
                path = patch_path(str(9000 + case), 1 + 50 * column, 1 + 50 * row, int(column == columns - 1))
                files[path] = draw_png(len(files))
    return files


def trapped_files() -> tuple[dict[str, bytes], dict[str, str]]:
    """Draw an archive with every trap that its files can hold.

    Returns:
        The files by path: 12 clean patches of 2 cases, one edge patch and one identical image more, the tree of the
        first case standing twice; and what must be left out, reason by path.
    """
    files = clean_files()
    clean = list(files)
    files |= {f"IDC_regular_ps50_idx5/{path}": files[path] for path in clean if path.startswith("9000")}
    files[patch_path("9000", 301, 301, 1)] = draw_png(100, width=42, height=7)
    files[patch_path("9001", 401, 401, 0)] = files[clean[0]]
    twice = patch_path("9001", 501, 501, 0)
    cut = patch_path("9001", 551, 501, 0)
    left_out = {
        twice: (draw_png(101), "two different patches under one name"),
        f"IDC_regular_ps50_idx5/{twice}": (draw_png(102, height=49), "two different patches under one name"),
        "9001/0/9001_idx5_x601_y1_class1.png": (draw_png(103), "folder of the class contradicts the name"),
        "9001/1/9000_idx5_x651_y1_class1.png": (draw_png(104), "folder of the case contradicts the name"),
        "9001/1/0/9000_idx5_x701_y1_class1.png": (draw_png(105), "folder of the class contradicts the name"),
        "9001/1/overview.png": (draw_png(106), "name is not <case>_idx5_x<X>_y<Y>_class<0|1>.png"),
        "9001/.DS_Store": (b"x", "file of the operating system"),
        "9001/Thumbs.db": (b"x", "file of the operating system"),
        f"__MACOSX/9001/0/._{clean[0].split('/')[-1]}": (b"x", "file of the operating system"),
        "notes.txt": (b"read me", "foreign file"),
        patch_path("9001", 801, 1, 0): (b"", "empty file"),
        patch_path("9001", 851, 1, 0): (b"no image at all", "no readable image"),
        patch_path("9001", 901, 1, 0): (draw_png(107, width=51), "larger than 50x50 pixels"),
        cut: (draw_png(108)[:3000], "truncated or damaged image"),
    }
    files |= {path: data for path, (data, _) in left_out.items()}
    return files, {path: reason for path, (_, reason) in left_out.items()}


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Write files into a zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows into a CSV file; the first one names the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
