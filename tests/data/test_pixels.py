import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from cancernet.data.archive.members import PatchError
from cancernet.data.pixels import FORMATS, read_rgb, to_rgb
from cancernet.data.store.decode import decode_patch
from tests.data.drawing import draw_png, encode


@pytest.fixture
def rgb() -> Image.Image:
    """A picture of 50x40 pixels that is no symmetry of its own, smooth enough for JPEG."""
    x, y = np.meshgrid(np.arange(50), np.arange(40))
    return Image.fromarray(np.stack([5 * x, 6 * y, 120 + x + y], axis=2).astype(np.uint8))


def read(data: bytes) -> np.ndarray:
    return read_rgb(io.BytesIO(data))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def deep_png(values: np.ndarray, kind: int) -> bytes:
    """Write uint16 (H, W, C) as a PNG of 16 bits, which Pillow cannot write in colour."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">II5B", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def deep_tiff(values: np.ndarray) -> bytes:
    """Write uint16 (H, W, 3) as a TIFF of 16 bits a channel in one strip."""
    height, width = values.shape[:2]
    pixels = values.astype("<u2").tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = 14 + len(pixels)
    return (
        b"II*\0" + struct.pack("<I", start) + struct.pack("<3H", 16, 16, 16) + pixels
        + struct.pack("<H", len(entries)) + table + bytes(4)
    )  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(rgb, kind):
    found = read(encode(rgb, kind)).astype(int)
    assert found.shape == (40, 50, 3)
    assert np.abs(found - np.asarray(rgb)).mean() < (6 if kind in ("JPEG", "WEBP") else 1e-9)


def test_other_modes_become_what_they_look_like(rgb):
    grey = rgb.convert("L")
    for image in (grey, grey.convert("1"), rgb.quantize(16), rgb.convert("RGBA"), grey.convert("LA")):
        np.testing.assert_array_equal(read(encode(image)), np.asarray(image.convert("RGB")))
    for image in (rgb.convert("CMYK"), rgb.convert("LAB"), rgb.convert("YCbCr")):
        # Compressed: Pillow before 13 does not read YCbCr that is not.
        assert np.abs(read(encode(image, "TIFF", compression="tiff_lzw")).astype(int) - np.asarray(rgb)).mean() < 2
    assert np.abs(read(encode(rgb.convert("CMYK"), "JPEG")).astype(int) - np.asarray(rgb)).mean() < 6


def test_what_is_transparent_is_white(rgb):
    half = rgb.convert("RGBA")
    half.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (40, 25))))
    for kind in ("PNG", "TIFF", "WEBP"):
        found = read(encode(half, kind)).astype(int)
        assert (found[:, ::2] == 255).all()
        assert np.abs(found[:, 1::2] - np.asarray(rgb)[:, 1::2]).mean() < 9
    palette = Image.new("P", (50, 50), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.info["transparency"] = 1
    assert (decode_patch(encode(palette))[0] == 255).all()


def test_one_transparent_colour_of_a_plain_png_is_white():
    image = Image.new("RGB", (50, 50), (10, 20, 30))
    image.putpixel((3, 4), (200, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=(10, 20, 30))
    patch, _, _ = decode_patch(buffer.getvalue())
    assert patch[4, 3].tolist() == [200, 0, 0]
    assert (np.delete(patch.reshape(-1, 3), 4 * 50 + 3, axis=0) == 255).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_and_colour_of_sixteen_bits_are_scaled_by_the_bits_in_use(rgb, bits):
    colours = np.asarray(rgb).astype(np.uint16)
    colours[0, 0] = 250  # the brightest pixel of a patch is well above a quarter of white
    wide = colours << (bits - 8)
    np.testing.assert_array_equal(read(encode(Image.fromarray(wide[:, :, 0])))[:, :, 0], colours[:, :, 0])
    np.testing.assert_array_equal(read(encode(Image.fromarray(wide[:, :, 0]), "TIFF"))[:, :, 1], colours[:, :, 0])
    np.testing.assert_array_equal(read(deep_png(wide, 2)), colours)
    np.testing.assert_array_equal(read(deep_tiff(wide)), colours)
    opaque = np.full_like(wide[:, :, :1], 0xFFFF)
    np.testing.assert_array_equal(read(deep_png(np.concatenate([wide, opaque], axis=2), 6)), colours)
    grey = np.concatenate([wide[:, :, :1], opaque], axis=2)
    np.testing.assert_array_equal(read(deep_png(grey, 4))[:, :, 0], colours[:, :, 0])


def test_depths_without_a_range_are_refused():
    for values in (np.full((9, 9), 0.5, np.float32), np.full((9, 9), 70_000, np.int32), np.full((9, 9), -1, np.int32)):
        with pytest.raises(PatchError, match="fractions, negative or above 16 bits"):
            read(encode(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_rotation_in_the_file_is_carried_out(rgb, kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    rgb.save(buffer, kind, exif=exif)
    upright = np.rot90(np.asarray(rgb), -1).astype(int)
    found, width, height = decode_patch(buffer.getvalue())
    assert (width, height) == (40, 50)
    assert np.abs(found[:, :40] - upright).mean() < 6
    assert to_rgb(rgb.copy()).shape == (40, 50, 3)


def test_colours_of_sixteen_bits_are_turned_too():
    values = np.arange(24, dtype=np.uint16).reshape(2, 4, 3) + 60_000
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    data = deep_png(values, 2)
    end = data.index(b"IDAT") - 4
    turned = data[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[end:]
    np.testing.assert_array_equal(read(turned), read(data)[::-1, ::-1])


def test_bombs_text_and_cut_files_are_refused_by_a_reason(rgb):
    header = struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    with pytest.raises(PatchError, match="more than 178 million pixels"):
        read(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(PatchError, match="no readable image"):
        read(b"this is a text")
    for kind in FORMATS:
        data = encode(rgb, kind)
        for cut in (10, len(data) // 2):
            with pytest.raises(PatchError, match="truncated or damaged|no readable image"):
                read(data[:cut])


def test_a_size_is_refused_before_a_pixel_is_decoded():
    def refuse(width, height):
        raise PatchError(f"{width} by {height}")

    with pytest.raises(PatchError, match="50 by 50"):
        read_rgb(io.BytesIO(draw_png(1)[:200]), refuse)
