"""Stores that were changed after packing, or hold an index of something else: one line, and no signal that kills."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from cancernet.cli import main
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.store.pack import pack
from cancernet.data.store.store import PatchStore, open_store
from cancernet.errors import InputError
from tests.data.drawing import clean_files, write_zip
from tests.output import only_line


@pytest.fixture
def store(tmp_path) -> PatchStore:
    archive = write_zip(tmp_path / "archive.zip", clean_files())
    return pack(archive, tmp_path / "store", workers=1, progress=False)


def rewrite_index(store: PatchStore, change) -> PatchStore:
    """Replace the index, as somebody would who also corrects the size in the manifest."""
    path = store.path / "index.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    manifest = json.loads((store.path / "manifest.json").read_text())
    manifest["bytes"]["index.parquet"] = path.stat().st_size
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    return open_store(store.path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.assign(label=7), "a label that is neither 0 nor 1"),
        (lambda table: table.assign(label=np.nan), "a label that is neither 0 nor 1"),
        (lambda table: table.drop(columns="case"), "lacks the column case"),
        (lambda table: table.drop(columns=["x", "hash"]), "lacks the column x, hash"),
        (lambda table: table[1:], "rows for 12 patches"),
    ],
)
def test_an_index_of_something_else_is_said(store, change, words):
    with pytest.raises(InputError, match=words) as caught:
        rewrite_index(store, change).index  # noqa: B018
    assert "\n" not in str(caught.value)
    assert "pack the archive again" in str(caught.value)


def test_a_store_cut_while_it_is_read_is_one_line_and_no_signal(store):
    store.gather(np.arange(3))
    os.truncate(store.path / "images.npy", 5000)
    with pytest.raises(InputError, match=r"images\.npy was cut while it was read, to 5,000 of"):
        store.gather(np.arange(3))


def test_verify_finds_changed_pixels_before_training(store, tmp_path, capsys):
    data = IDCDataModule(str(store.path), verify=True)
    data.prepare_data()
    with (store.path / "images.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"\0\1\2")
    options = [f"--data.root={store.path}", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *options, "--data.verify=true"]) == 2
    line = only_line(capsys)
    assert "images.npy is not what was packed (its checksum differs)" in line
    assert str(store.path) in line
