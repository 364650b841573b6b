import json
import pickle

import numpy as np
import pytest

from cancernet.data.audit import audit
from cancernet.data.store import decode_pool
from cancernet.data.store.decode import decode_patch
from cancernet.data.store.pack import pack
from cancernet.data.store.store import open_store
from cancernet.errors import InputError
from tests.data.drawing import clean_files, draw_png, patch_path, trapped_files, write_folder, write_table, write_zip


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "archive.zip", clean_files())


def check_against_files(store, files):
    for row, path in enumerate(store.index["path"]):
        patch, width, height = decode_patch(files[path])
        assert (store.images[row] == patch).all()
        assert (store.index["width"][row], store.index["height"][row]) == (width, height)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_a_trapped_archive_is_packed_and_everything_left_out_is_listed(tmp_path, kind):
    files, left_out = trapped_files()
    write = write_zip if kind == "zip" else write_folder
    store = pack(write(tmp_path / f"archive.{kind}", files), tmp_path / "store", workers=1, progress=False)
    check_against_files(store, files)
    assert {reject["path"]: reject["reason"] for reject in store.manifest["rejects"]} == left_out
    counts = audit(store)
    assert (counts.patches, counts.cases, counts.idc, counts.benign) == (14, 2, 5, 9)
    assert (counts.edge_patches, counts.identical_images, counts.duplicates) == (1, 1, 6)
    rows = store.index[["case", "y", "x", "path"]].itertuples(index=False)
    assert [tuple(row) for row in rows] == sorted(map(tuple, store.index[["case", "y", "x", "path"]].to_numpy()))
    store.verify(progress=False)


def test_index_and_images_have_the_types_of_the_contract(archive, tmp_path):
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    types = {name: str(kind) for name, kind in store.index.dtypes.items()}
    assert types | {"path": "", "case": ""} == {
        "path": "",
        "case": "",
        "label": "int8",
        "x": "int32",
        "y": "int32",
        "width": "int16",
        "height": "int16",
        "hash": "uint64",
    }
    assert (store.images.shape, store.images.dtype, len(store)) == ((12, 50, 50, 3), np.uint8, 12)
    assert isinstance(store.images, np.memmap)
    assert (store.name, store.synthetic, store.manifest["source"]["kind"]) == ("archive", False, "zip")


def test_gather_copies_rows_in_any_order(archive, tmp_path):
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    rows = np.array([5, 0, 5, 11])
    batch = store.gather(rows)
    assert type(batch) is np.ndarray
    assert batch.flags.c_contiguous
    assert batch.flags.writeable
    assert (batch == store.images[rows]).all()
    with pytest.raises(IndexError):
        store.gather(np.array([12]))


def test_a_store_travels_by_its_path(archive, tmp_path):
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    assert store.images.shape
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert (pickle.loads(data).images == store.images).all()


def test_two_processes_pack_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "CHUNK", 5)
    files, _ = trapped_files()
    archive = write_zip(tmp_path / "archive.zip", files)
    one = pack(archive, tmp_path / "one", workers=1, progress=False)
    two = pack(archive, tmp_path / "two", workers=2, progress=False)
    assert one.manifest == two.manifest


def test_copies_of_one_size_are_compared_when_they_are_read(tmp_path):
    path, other = patch_path("9000", 1, 1, 0), patch_path("9000", 51, 1, 0)
    data = draw_png(1)
    root = write_folder(tmp_path / "folder", {path: data, f"b/{path}": data[::-1], other: draw_png(2)})
    store = pack(root, tmp_path / "store", workers=1, progress=False)
    assert store.index["path"].tolist() == [other]
    assert store.manifest["audit"]["duplicates"] == 0
    assert store.manifest["audit"]["rejects"] == {"two different patches under one name": 2}


def test_damage_inside_a_zip_is_found_by_its_crc(archive, tmp_path):
    data = bytearray(archive.read_bytes())
    data[3000] ^= 1
    archive.write_bytes(data)
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    assert store.manifest["audit"]["rejects"] == {"damaged in the zip": 1}
    assert len(store) == 11


def test_a_table_is_packed(tmp_path):
    files = {"a.png": draw_png(1), "b.png": draw_png(2, 42, 50)}
    write_folder(tmp_path / "cohort", files)
    table = write_table(
        tmp_path / "cohort" / "table.csv",
        [{"path": "a.png", "label": 1, "case": "p"}, {"path": "b.png", "label": 0, "case": "q"}],
    )
    store = pack(table, tmp_path / "store", workers=1, progress=False)
    check_against_files(store, files)
    assert store.index["x"].tolist() == [-1, -1]


def test_an_archive_without_a_readable_patch_is_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {patch_path("1", 1, 1, 0): b"nothing"})
    with pytest.raises(InputError, match=r"no readable patch \(1 no readable image\)"):
        pack(archive, tmp_path / "store", workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_store_of_version_0_1_opens(archive, tmp_path):
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    old = {name: value for name, value in store.manifest.items() if name not in ("layout", "sizes", "mpp")}
    old["audit"] = {name: value for name, value in old["audit"].items() if name != "unlabelled"}
    (store.path / "manifest.json").write_text(json.dumps(old))
    again = open_store(store.path)
    assert (again.understood, audit(again).unlabelled, len(again.index)) == ("", 0, 12)
