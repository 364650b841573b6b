import struct

import numpy as np
import pytest
from PIL import Image

from cancernet.data.archive.members import PatchError
from cancernet.data.store.decode import decode_patch
from tests.data.drawing import (
    draw_png,
    encode,
)


def test_small_images_are_padded_by_their_edge_and_never_stretched():
    patch, width, height = decode_patch(draw_png(7, width=42, height=3))
    assert (patch.shape, patch.dtype, width, height) == ((50, 50, 3), np.uint8, 42, 3)
    inner = np.random.default_rng(7).integers(0, 256, (3, 42, 3), np.uint8)
    assert (patch[:3, :42] == inner).all()
    assert (patch[:3, 42:] == inner[:, -1:]).all()
    assert (patch[3:] == patch[2]).all()


def test_images_of_other_kinds_become_eight_bit_rgb(tmp_path):
    rgb = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 50, 3), np.uint8))
    grey = rgb.convert("L")
    for image in (rgb, grey, grey.convert("1"), rgb.quantize(16), rgb.convert("RGBA"), grey.convert("LA")):
        patch, _, _ = decode_patch(encode(image))
        assert (patch == np.asarray(image.convert("RGB"))).all()
    sixteen = (np.asarray(grey).astype(np.uint16) << 8) + 77
    assert (decode_patch(encode(Image.fromarray(sixteen)))[0] == np.asarray(grey)[:, :, None]).all()
    clear = Image.new("RGBA", (50, 50), (10, 20, 30, 0))
    assert (decode_patch(encode(clear))[0] == 255).all()
    assert (decode_patch(encode(rgb, "BMP"))[0] == np.asarray(rgb)).all()
    assert (decode_patch(encode(rgb, "TIFF"))[0] == np.asarray(rgb)).all()


def test_no_damaged_png_passes():
    data = draw_png(3)
    for cut in (*range(0, len(data), 97), len(data) - 1, len(data) - 12):
        with pytest.raises(PatchError):
            decode_patch(data[:cut])
    for place in range(0, len(data), 61):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        with pytest.raises(PatchError):
            decode_patch(bytes(flipped))


def test_the_size_is_looked_at_before_the_pixels():
    header = struct.pack(">II5B", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    import zlib

    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(PatchError, match="larger than 50x50"):
        decode_patch(bomb)
    with pytest.raises(PatchError, match="larger than 50x50"):
        decode_patch(encode(Image.new("L", (51, 2)), "BMP"))
