"""A command scans its archive once: a folder of 277,524 files takes seconds each time."""

import os
from pathlib import Path

import pytest

from cancernet.data.archive import scan, source
from cancernet.data.datamodule import IDCDataModule
from tests.conftest import learnable_files
from tests.data.drawing import write_folder, write_table, write_zip


@pytest.fixture(params=["zip", "folder", "csv"])
def root(request, tmp_path) -> Path:
    files = learnable_files()
    if request.param == "zip":
        return write_zip(tmp_path / "archive.zip", files)
    folder = write_folder(tmp_path / "archive", files)
    if request.param == "folder":
        return folder
    rows = [{"path": path, "label": path.split("/")[1], "case": path.split("/")[0]} for path in files]
    return write_table(folder / "table.csv", rows)


@pytest.fixture
def scans(monkeypatch, root) -> list[str]:
    """What is scanned: folders listed, directories of a zip read, tables parsed."""
    done: list[str] = []

    def count(module, name, what):
        function = getattr(module, name)

        def counted(first, *others, **named):
            if str(first).startswith(str(root)):
                done.append(what)
            return function(first, *others, **named)

        monkeypatch.setattr(module, name, counted)

    count(os, "scandir", "folder")
    count(source, "fingerprint_zip", "directory")
    count(scan.zipfile, "ZipFile", "zip")
    count(source, "list_table", "table")
    return done


def test_a_command_scans_its_archive_once(root, scans, tmp_path):
    folders = 1 + sum(path.is_dir() for path in root.rglob("*")) if root.is_dir() else 0
    scans.clear()  # which that has filled
    first = IDCDataModule(str(root), cache=str(tmp_path / "cache"), workers=1)
    first.prepare_data()
    first.setup("fit")
    kind = first.store.manifest["source"]["kind"]
    packing = {"zip": ["directory", "zip"], "folder": folders * ["folder"], "csv": ["table"]}[kind]
    assert first.store.fresh
    assert scans == packing
    scans.clear()
    again = IDCDataModule(str(root), cache=str(tmp_path / "cache"))
    again.prepare_data()
    again.setup("test")
    again.setup("predict")
    # The entries of a zip are parsed for packing alone.
    assert scans == [what for what in packing if what != "zip"]
    assert again.store.path == first.store.path


def test_a_process_that_only_sets_up_scans_once_itself(root, scans, tmp_path):
    IDCDataModule(str(root), cache=str(tmp_path / "cache"), workers=1).prepare_data()
    before = len(scans)
    other = IDCDataModule(str(root), cache=str(tmp_path / "cache"))
    other.setup("fit")
    assert 0 < len(scans) - before <= before
    assert not other.store.fresh
