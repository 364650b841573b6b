import hashlib
import os
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cancernet.data.archive.listing import Listing, show
from cancernet.data.archive.members import PatchError
from cancernet.data.archive.source import Source
from cancernet.data.store.decode import decode_patch
from cancernet.errors import InputError
from tests.data.drawing import (
    clean_files,
    draw_png,
    encode,
    patch_path,
    trapped_files,
    write_folder,
    write_table,
    write_zip,
)

FOUND_WHEN_DECODED = {"no readable image", "larger than 50x50 pixels", "truncated or damaged image"}


def list_archive(root: Path) -> Listing:
    return Source(root).list_patches()


@pytest.fixture(params=["zip", "deflated", "folder"])
def write(request, tmp_path):
    def write_archive(files):
        if request.param == "folder":
            return write_folder(tmp_path / "archive", files)
        method = zipfile.ZIP_DEFLATED if request.param == "deflated" else zipfile.ZIP_STORED
        return write_zip(tmp_path / "archive.zip", files, method)

    return write_archive


def test_every_trap_is_listed_with_its_reason(write):
    files, left_out = trapped_files()
    listing = list_archive(write(files))
    late = {path for path, reason in left_out.items() if reason in FOUND_WHEN_DECODED}
    assert dict(listing.rejects) == {path: reason for path, reason in left_out.items() if path not in late}
    assert len(listing) == 14 + len(late)
    assert listing.duplicates == 6
    assert not any(path.startswith("IDC_regular") for path in listing.path)
    assert len(listing) + listing.duplicates + len(listing.rejects) == len(files)


def test_rows_are_sorted_and_carry_what_the_name_says(write):
    listing = list_archive(write(clean_files()))
    rows = list(zip(listing.case, listing.y, listing.x, listing.path, strict=True))
    assert rows == sorted(rows)
    assert [patch_path(case, x, y, label) for case, y, x, label in zip(
        listing.case, listing.y, listing.x, listing.label, strict=True)] == listing.path  # fmt: skip
    assert (listing.label.dtype, listing.x.dtype, listing.y.dtype) == (np.int8, np.int32, np.int32)


def test_wrapping_folders_and_lone_case_folders_are_read(tmp_path, write):
    files = clean_files()
    wrapped = list_archive(write({f"a wrapper/inner/{path}": data for path, data in files.items()}))
    assert len(wrapped) == len(files)
    folder = write_folder(tmp_path / "unpacked", files)
    assert len(list_archive(folder / "9000")) == 6
    assert len(list_archive(folder / "9000" / "1")) == 2


def test_the_copy_with_the_shorter_path_counts_in_any_order(tmp_path):
    short, data = patch_path("9000", 1, 1, 0), draw_png(1)
    for name, order in {"a.zip": (short, f"deep/{short}"), "b.zip": (f"deep/{short}", short)}.items():
        listing = list_archive(write_zip(tmp_path / name, dict.fromkeys(order, data)))
        assert (listing.path, listing.duplicates) == ([short], 1)


def test_a_third_copy_that_differs_takes_all_three_out(write):
    path, other = patch_path("9000", 1, 1, 0), patch_path("9000", 51, 1, 0)
    files = {path: draw_png(1), f"b/{path}": draw_png(1), f"c/{path}": draw_png(2, 49), other: draw_png(3)}
    listing = list_archive(write(files))
    assert listing.path == [other]
    assert len(listing.rejects) == 3
    assert listing.duplicates == 0


def test_the_mark_of_a_synthetic_archive_is_seen(write, tmp_path):
    assert not list_archive(write(clean_files())).synthetic
    root = write({"SYNTHETIC.json": b"{}", **clean_files()})
    listing = list_archive(root)
    assert listing.synthetic
    assert listing.rejects == []
    if root.is_dir():
        assert list_archive(root / "9000").synthetic
        rows: list[dict[str, object]] = [
            {"path": path, "label": path.split("/")[1], "case": "a"} for path in listing.path
        ]
        assert list_archive(write_table(tmp_path / "archive" / "table.csv", rows)).synthetic


def test_encrypted_and_oddly_packed_members_are_rejected(tmp_path):
    files = clean_files(cases=1)
    odd = list(files)[:2]
    path = write_zip(tmp_path / "archive.zip", files)
    data = bytearray(path.read_bytes())
    for name, offset, value in ((odd[0], 8, 1), (odd[1], 10, 14)):
        entry = data.rindex(name.encode()) - 46
        struct.pack_into("<H", data, entry + offset, value)
    path.write_bytes(data)
    listing = list_archive(path)
    reasons = dict(listing.rejects)
    assert reasons == {
        odd[0]: "encrypted in the zip",
        odd[1]: "packed by a method other than stored and deflate",
    }
    assert len(listing) == len(files) - 2


@pytest.mark.parametrize("kept", [0, 3, 0.5, 0.9, -30, -1])
def test_a_truncated_zip_is_refused(tmp_path, kept):
    path = write_zip(tmp_path / "archive.zip", clean_files())
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"archive\.zip.*download it again"):
        list_archive(path)


def test_a_zip_with_a_hole_in_it_is_refused(tmp_path):
    path = write_zip(tmp_path / "archive.zip", clean_files())
    data = path.read_bytes()
    path.write_bytes(data[:1000] + data[2000:])
    with pytest.raises(InputError, match="damaged zip"):
        list_archive(path)


def test_a_zip_in_the_long_format_and_behind_a_stub_is_read(tmp_path):
    files = clean_files()
    plain = list_archive(write_zip(tmp_path / "plain.zip", files))
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    listing = list_archive(path)
    assert listing.path == plain.path
    assert (listing.place["size"] == plain.place["size"]).all()


def central_directory(path):
    """The bytes from the first entry to the end record, found by means of `zipfile`."""
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    tail = path.read_bytes()[start:]
    end = tail.rindex(b"PK\x05\x06")
    long_end = tail.find(b"PK\x06\x06")
    return tail[: end if long_end < 0 else long_end]


@pytest.mark.parametrize("form", ["plain", "comment", "stub", "long", "long behind a stub"])
def test_the_fingerprint_of_a_zip_is_the_hash_of_its_central_directory(tmp_path, monkeypatch, form):
    """Stores in the users' caches are found by it."""
    if "long" in form:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)  # from here on zipfile writes zip64 end records
    path = write_zip(tmp_path / "archive.zip", clean_files())
    if form == "comment":
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"from the clinic"
    if "stub" in form:
        path.write_bytes(b"#!/bin/sh\n" * 99 + path.read_bytes())
    directory = central_directory(path)
    assert (b"PK\x06\x06" in path.read_bytes()) == ("long" in form)
    assert directory.startswith(b"PK\x01\x02")
    assert Source(path).fingerprint == hashlib.blake2b(directory).hexdigest()
    assert len(list_archive(path)) == 12


def test_a_zip_that_claims_nonsense_is_refused_in_one_line(tmp_path):
    path = write_zip(tmp_path / "archive.zip", clean_files())
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    name = data.index(b"PK\x01\x02") + 46
    claims = {
        "a directory larger than the file": (end + 12, b"\xff\xff\xff\x7f"),
        "a directory of another length": (end + 12, b"\x10\0\0\0"),
        "a name that is no UTF-8": (name - 38, b"\0\x08"),
        "a version to come": (name - 40, b"\xff\0"),
        "an entry of another kind": (name - 46, b"XY"),
    }
    for claim, (place, value) in claims.items():
        broken = data[:place] + value + data[place + len(value) :]
        if "UTF-8" in claim:
            broken = broken[:name] + b"\xff\xfe" + broken[name + 2 :]
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"archive\.zip is a damaged zip.*download it again"):
            list_archive(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_and_rings_and_pipes_do_no_harm(tmp_path):
    files = clean_files()
    elsewhere = write_folder(tmp_path / "elsewhere", files)
    root = tmp_path / "root"
    root.mkdir()
    (root / "9000").symlink_to(elsewhere / "9000")
    (root / "ring").symlink_to(root)
    (root / "gone.png").symlink_to(tmp_path / "nowhere")
    target = root / patch_path("9001", 1, 1, 0)
    target.parent.mkdir(parents=True)
    target.symlink_to(elsewhere / patch_path("9001", 1, 1, 0))
    os.mkfifo(root / "9001" / "0" / "9001_idx5_x51_y1_class0.png")
    listing = list_archive(root)
    assert len(listing) == 7
    assert {reason for _, reason in listing.rejects} == {"no file", "name is not <case>_idx5_x<X>_y<Y>_class<0|1>.png"}


def test_what_holds_no_patch_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list_archive(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="it is empty"):
        list_archive(tmp_path / "empty")
    with pytest.raises(InputError, match=r"notes\.txt \(foreign file\)"):
        list_archive(write_folder(tmp_path / "other", {"notes.txt": b"x"}))
    with pytest.raises(InputError, match="holds no patch"):
        list_archive(write_zip(tmp_path / "other.zip", {"photo.png": draw_png(1)}))
    with pytest.raises(InputError, match="neither a zip"):
        list_archive(write_folder(tmp_path, {"a.tar": b"x"}) / "a.tar")


def test_a_table_is_listed_with_its_bad_rows(tmp_path):
    files = {f"images/{name}.png": draw_png(seed) for seed, name in enumerate("abcdef")}
    write_folder(tmp_path, {**files, "images/nil.png": b""})
    rows: list[dict[str, object]] = [
        {"path": "images/a.png", "label": 1, "case": "p1", "x": 51, "y": "1.0"},
        {"path": "images/b.png", "label": 0, "case": "p1", "x": "", "y": ""},
        {"path": "images/b.png", "label": 0, "case": "p1", "x": "", "y": ""},
        {"path": str(tmp_path / "images/c.png"), "label": "0.0", "case": "p2", "x": "", "y": ""},
        {"path": "images/d.png", "label": "IDC", "case": "p2", "x": "", "y": ""},
        {"path": "images/e.png", "label": 1, "case": "", "x": "", "y": ""},
        {"path": "images/f.png", "label": 1, "case": "p2", "x": 1, "y": ""},
        {"path": "images/nil.png", "label": 1, "case": "p2", "x": 1, "y": 1},
        {"path": "images/gone.png", "label": 1, "case": "p2", "x": 1, "y": 1},
        {"path": "", "label": 1, "case": "p2", "x": 1, "y": 1},
    ]
    listing = list_archive(write_table(tmp_path / "table.csv", rows))
    assert listing.case == ["p1", "p1", "p2"]
    assert listing.label.tolist() == [0, 1, 0]
    assert list(zip(listing.x, listing.y, strict=True)) == [(-1, -1), (51, 1), (-1, -1)]
    assert listing.duplicates == 1
    assert [reason for _, reason in listing.rejects] == [
        "label is neither 0 nor 1",
        "row without a case",
        "x and y are not whole pixels from 0",
        "empty file",
        "file does not exist",
        "row without a path",
    ]


def test_rows_that_contradict_each_other_stay_out(tmp_path):
    write_folder(tmp_path, {"a.png": draw_png(1), "b.png": draw_png(2)})
    rows: list[dict[str, object]] = [
        {"path": "a.png", "label": 0, "case": "p"},
        {"path": "./a.png", "label": 1, "case": "p"},
    ]
    listing = list_archive(write_table(tmp_path / "t.csv", [*rows, {"path": "b.png", "label": 1, "case": "p"}]))
    assert listing.path == ["b.png"]
    assert len(listing.rejects) == 2


def test_tables_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\nx.png,1\n")
    with pytest.raises(InputError, match="lacks the column case"):
        list_archive(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes("path,label,case\nä.png,1,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        list_archive(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(InputError, match="lacks the column path, label, case"):
        list_archive(tmp_path / "c.csv")


def test_the_fingerprint_changes_with_the_source_and_only_then(tmp_path):
    files = clean_files()
    folder = write_folder(tmp_path / "folder", files)
    archive = write_zip(tmp_path / "a.zip", files)
    rows = [{"path": f"folder/{path}", "label": 0, "case": "p"} for path in files]
    table = write_table(tmp_path / "t.csv", rows)
    before = [Source(root).fingerprint for root in (folder, archive, table)]
    assert before == [list_archive(root).fingerprint for root in (folder, archive, table)]
    changed = folder / next(iter(files))
    os.utime(changed, ns=(0, 0))
    write_zip(archive, files | {next(iter(files)): draw_png(99)})
    after = [Source(root).fingerprint for root in (folder, archive, table)]
    assert all(one != other for one, other in zip(before, after, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "IDC_regular_ps50_idx5/", "a/b/", "__MACOSX/", "../"]),
            st.sampled_from(["9000", "9001", "x y", "\u00e4", "\x1b[31m"]),
            st.sampled_from(["0", "1", "2", "notes"]),
            st.text("abx_0159.", min_size=0, max_size=4),
            st.integers(0, 3),
            st.sampled_from(["0", "1", "2"]),
            st.sampled_from([".png", ".PNG", ".txt", ""]),
            st.integers(0, 2),
        ),
        max_size=30,
    )
)
def test_every_file_is_accounted_for(tmp_path_factory, parts):
    files = {
        f"{top}{case}/{folder}/{case}{odd}_idx5_x{x}_y1_class{label}{ending}": bytes(size + 1)
        for top, case, folder, odd, x, label, ending, size in parts
    }
    good = patch_path("1", 1, 1, 1)
    path = write_zip(tmp_path_factory.mktemp("names") / "a.zip", {**files, good: b"x"})
    listing = list_archive(path)
    assert len(listing) + listing.duplicates + len(listing.rejects) == len(files) + 1
    assert good in listing.path
    for row, name in enumerate(listing.path):
        case, label, last = name.split("/")[-3:]
        assert case == listing.case[row]
        assert int(label) == listing.label[row]
        assert last.startswith(f"{case}_idx5_")
        assert name.isprintable()
    assert all(reject.path.isprintable() for reject in listing.rejects)


def test_names_are_shown_without_what_a_terminal_would_obey():
    assert show("plain/ä.png") == "plain/ä.png"
    assert show("a\x1b[31m\n\udcff") == r"a\x1b[31m\n\udcff"


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


def test_listing_imports_neither_torch_nor_pandas(tmp_path):
    import subprocess

    path = write_zip(tmp_path / "a.zip", clean_files())
    code = (
        "import sys; from pathlib import Path; from cancernet.data.store.pack import pack\n"
        f"store = pack({str(path)!r}, {str(tmp_path / 'store')!r}, workers=1, progress=False)\n"
        "store.gather([0])\n"
        "print([name for name in ('torch', 'keras', 'lightning', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
