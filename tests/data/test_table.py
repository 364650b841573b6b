import pytest

from cancernet.data.archive.source import Source
from cancernet.errors import InputError
from tests.data.drawing import (
    draw_png,
    patch_path,
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
        {"path": "images/d.png", "label": "maybe", "case": "p2", "x": "", "y": ""},
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
        "label is neither 0 nor 1, nor IDC, benign or the like",
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
    (tmp_path / "a.csv").write_text("photograph,label\nx.png,1\n")
    with pytest.raises(InputError, match=r"lacks the column path.*found: photograph, label.*--data.columns.path"):
        list_archive(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes("path,label,case\nä.png,1,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        list_archive(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(InputError, match="lacks the column path"):
        list_archive(tmp_path / "c.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_other_programs_are_read(tmp_path, separator, encoding):
    write_folder(tmp_path, {"tiles/ä 1.png": draw_png(1), "tiles/b.jpg": draw_png(2), "tiles/c.png": draw_png(3)})
    lines = [["Image_Path", "Target", "Patient_ID", "remark"],
             ["tiles\\ä 1.png", "Malignant", "p1", "x"],
             ["C:\\data\\tiles\\b.jpg", "non-IDC", "p1", ""],
             [str(tmp_path / "tiles" / "c.png"), "1.0", "p2", ""]]  # fmt: skip
    table = tmp_path / "t.tsv"
    table.write_text("\r\n".join(separator.join(line) for line in lines), encoding=encoding)
    listing = list_archive(table)
    assert listing.rejects == []
    assert sorted(zip(listing.case, listing.label.tolist(), strict=True)) == [("p1", 0), ("p1", 1), ("p2", 1)]
    assert listing.layout == "path from column image_path, label from column target, case from column patient_id"


def test_what_a_table_does_not_tell_the_names_may(tmp_path):
    names = [patch_path("9000", 51, 1, 1), "plain.png"]
    write_folder(tmp_path, {name: draw_png(1) for name in names})
    listing = list_archive(write_table(tmp_path / "t.csv", [{"file": name} for name in names]))
    facts = zip(listing.case, listing.label.tolist(), listing.x.tolist(), listing.y.tolist(), strict=True)
    assert list(facts) == [("", -1, -1, -1), ("9000", 1, 51, 1)]


def test_a_column_that_is_named_and_not_there_is_refused(tmp_path):
    write_folder(tmp_path, {"a.png": draw_png(1), "t.csv": b"path,label\na.png,1\n"})
    with pytest.raises(InputError, match=r"has no column 'truth' for the label \(found: path, label\)"):
        Source(tmp_path / "t.csv", {"label": "truth"})
    with pytest.raises(InputError, match="'labels' is none of path, label, case, x, y"):
        Source(tmp_path / "t.csv", {"labels": "label"})
    first, second = (Source(tmp_path / "t.csv", columns).fingerprint for columns in (None, {"case": "path"}))
    assert first != second


def test_a_first_line_that_is_no_csv_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("path," + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"a\.csv, line \d, cannot be read as CSV \(field larger than"):
        list_archive(tmp_path / "a.csv")
