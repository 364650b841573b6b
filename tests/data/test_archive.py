import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancernet.data.archive.layout import parse_name
from cancernet.data.archive.listing import show
from cancernet.data.archive.source import Source
from cancernet.errors import InputError
from tests.data.drawing import (
    clean_files,
    draw_png,
    patch_path,
    trapped_files,
    write_folder,
    write_table,
    write_zip,
)
from tests.data.listings import list_archive

FOUND_WHEN_DECODED = {"no readable image", "larger than 50x50 pixels", "truncated or damaged image"}


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
    with pytest.raises(InputError, match=r"holds no patch: .* inner\.zip \(another zip: unpack it"):
        list_archive(write_zip(tmp_path / "other.zip", {"inner.zip": b"PK"}))
    with pytest.raises(InputError, match="neither a zip"):
        list_archive(write_folder(tmp_path, {"a.tar": b"x"}) / "a.tar")


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


@settings(max_examples=60)
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
        said = parse_name(name.rpartition("/")[2])
        if said is not None:
            assert (show(said.case), said.label) == (listing.case[row], listing.label[row])
        assert name.isprintable()
    assert all(reject.path.isprintable() for reject in listing.rejects)


def test_names_are_shown_without_what_a_terminal_would_obey():
    assert show("plain/ä.png") == "plain/ä.png"
    assert show("a\x1b[31m\n\udcff") == r"a\x1b[31m\n\udcff"


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
