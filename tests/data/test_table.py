import pytest

from cancernet.errors import InputError
from tests.data.drawing import (
    draw_png,
    write_folder,
    write_table,
)
from tests.data.listings import list_archive


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
