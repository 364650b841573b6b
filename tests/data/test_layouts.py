"""Archives of any layout: where class and case come from, and that every file is accounted for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancernet.data.archive.layout import UNKNOWN_CASE, UNLABELLED
from cancernet.data.archive.listing import Listing, select
from cancernet.data.archive.scan import Contents
from cancernet.data.archive.source import Source
from cancernet.errors import InputError
from tests.data.drawing import draw_png, patch_path, write_folder, write_zip
from tests.data.listings import list_archive


def listing_of(*names: str) -> Listing:
    return select(Path("root"), "", Contents(list(names), np.ones(len(names), np.int64), {}))


def rows(listing: Listing) -> list[tuple[str, int]]:
    return sorted(zip(listing.case, listing.label.tolist(), strict=True))


@pytest.mark.parametrize(
    ("benign", "idc"),
    [("0", "1"), ("benign", "malignant"), ("non-IDC", "IDC"), ("Non_IDC", "idc"), ("negative", "positive")],
)
def test_the_folder_says_the_class_above_or_below_the_case(benign, idc):
    for names in ([f"{benign}/p1/a.png", f"{idc}/p1/a.png", f"{idc}/p2/b.jpg"],
                  [f"p1/{benign}/a.png", f"p1/{idc}/a.png", f"p2/{idc}/b.jpg"],
                  [f"all/{benign}/p1/a.png", f"all/{idc}/p1/a.png", f"all/{idc}/p2/b.jpg"]):  # fmt: skip
        listing = listing_of(*names)
        assert rows(listing) == [("p1", 0), ("p1", 1), ("p2", 1)]
        assert listing.layout == f"class from folders {benign}/{idc}, case from folders (2, such as p1)"


def test_the_tutorials_tree_is_read_with_the_cases_of_the_names():
    listing = listing_of(
        "training/0/8863_idx5_x1_y1_class0.png", "training/1/8863_idx5_x51_y1_class1.png",
        "validation/0/8864_idx5_x1_y1_class0.png", "testing/1/8865_idx5_x1_y1_class1.png",
    )  # fmt: skip
    assert rows(listing) == [("8863", 0), ("8863", 1), ("8864", 0), ("8865", 1)]
    assert listing.layout == "class and case from the names"
    nameless = listing_of("training/0/a.png", "training/1/b.png", "testing/1/c.png")
    assert rows(nameless) == [(UNKNOWN_CASE, 0), (UNKNOWN_CASE, 1), (UNKNOWN_CASE, 1)]
    assert nameless.layout == "class from folders 0/1, case unknown"


def test_names_like_kaggles_count_in_any_folder_and_format():
    listing = listing_of(
        "8863_idx5_x1_y1_class0.jpg", "some/8864_idx5_x1_y1_class1.TIFF", "8865/1/8865_idx5_x1_y1_class1.webp"
    )
    assert rows(listing) == [("8863", 0), ("8864", 1), ("8865", 1)]


def test_images_without_classes_are_unlabelled():
    listing = listing_of("a.png", "b.webp")
    assert rows(listing) == [(UNKNOWN_CASE, UNLABELLED)] * 2
    assert listing.layout == "class unknown, case unknown"
    by_patient = listing_of("p1/left/a.png", "p1/right/a.png", "p2/a.png")
    assert rows(by_patient) == [("p1", UNLABELLED)] * 2 + [("p2", UNLABELLED)]


def test_one_class_alone_may_be_the_name_of_the_whole():
    assert set(listing_of("IDC/p1/a.png", "IDC/p2/a.png").label) == {UNLABELLED}
    assert listing_of("IDC/p1/a.png", "IDC/p2/a.png").case == ["p1", "p2"]


def test_numbered_cases_are_no_classes():
    listing = listing_of("0/a.png", "1/a.png", "2/a.png")
    assert rows(listing) == [("0", UNLABELLED), ("1", UNLABELLED), ("2", UNLABELLED)]


def test_a_stray_image_of_a_labelled_archive_is_left_out_with_its_reason():
    listing = listing_of("benign/a.png", "malignant/b.png", "malignant/c.png", "overview.png", "notes/read me.txt")
    assert dict(listing.rejects) == {
        "overview.png": "no folder names its class, as those of the others do",
        "notes/read me.txt": "foreign file",
    }
    assert len(listing) == 3


def test_a_folder_that_contradicts_a_name_takes_the_image_out():
    listing = listing_of("2/benign/IDC/9000_idx5_x1_y1_class0.png", "malignant/9000_idx5_x51_y1_class0.png",
                         "benign/9001_idx5_x1_y1_class0.png", "9001/0/9002_idx5_x1_y1_class0.png")  # fmt: skip
    assert listing.path == ["benign/9001_idx5_x1_y1_class0.png"]
    assert sorted(reason for _, reason in listing.rejects) == [
        "folder of the case contradicts the name",
        "folder of the class contradicts the name",
        "folder of the class contradicts the name",
    ]


FOLDERS = ["", "0/", "1/", "2/", "benign/", "IDC/", "malignant/", "training/", "p 1/", "ä/", "9000/", "a/b/",
           "\U0001f52c/", "__MACOSX/", "<b>'\"&/"]  # fmt: skip
NAMES = ["a.png", "b.JPG", "c.webp", "notes.txt", "inner.zip", "9000_idx5_x1_y1_class0.png", 
         "9001_idx5_x1_y51_class1.png", ".hidden.png", "ü 'quoted' <i>.tif"]  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=3), st.sampled_from(NAMES)).map(
            lambda given: "".join(given[0]) + given[1]
        ),
        unique=True,
        max_size=12,
    )
)
def test_every_file_of_any_layout_is_accounted_for(names):
    listing = listing_of(*names)
    assert len(listing) + listing.duplicates + len(listing.rejects) == len(names)
    assert all(reason for _, reason in listing.rejects)
    assert set(listing.label) <= {UNLABELLED, 0, 1}
    assert len(set(listing.path)) == len(listing)


def test_files_folders_and_patterns_are_one_archive(tmp_path):
    root = write_folder(tmp_path / "in put", {f"benign/{name}.png": draw_png(k) for k, name in enumerate("abc")})
    write_folder(root, {"malignant/ü '1'.png": draw_png(9)})
    everything = list_archive(root)
    assert rows(everything) == [(UNKNOWN_CASE, 0)] * 3 + [(UNKNOWN_CASE, 1)]
    by_pattern = list_archive(f"{root}/*/*.png")
    by_list = list_archive([root / "benign", f"{root}/malignant/*"])
    assert by_pattern.path == by_list.path == everything.path
    assert (by_pattern.kind, by_pattern.source) == ("files", root)
    one = Source(root / "benign" / "a.png")
    assert (one.kind, one.name, one.list_patches().path) == ("files", "a", ["a.png"])
    assert one.fingerprint != Source(root / "benign" / "b.png").fingerprint


def test_roots_that_cannot_be_read_together_are_named(tmp_path):
    write_folder(tmp_path, {"a.png": draw_png(1), "note.txt": b"x"})
    archive = write_zip(tmp_path / "b.zip", {patch_path("1", 1, 1, 0): draw_png(1)})
    with pytest.raises(InputError, match=r"b\.zip is one of several roots"):
        Source([tmp_path / "a.png", archive])
    with pytest.raises(InputError, match=r"\*\.tif matches nothing"):
        Source(f"{tmp_path}/*.tif")
    with pytest.raises(InputError, match="empty list"):
        Source([])
    with pytest.raises(InputError, match=r"data\.columns goes with a CSV table"):
        Source(archive, {"path": "image"})
