"""Data that moved or changed since they were packed, or since a model was trained on them."""

import json
import shutil
from contextlib import suppress

import pytest

from cancernet.data.datamodule import IDCDataModule
from cancernet.data.store.find import check_root, find_store
from cancernet.errors import InputError
from cancernet.preflight import preflight
from tests.conftest import learnable_files
from tests.data.drawing import clean_files, write_folder, write_zip


def test_the_store_of_an_archive_that_is_gone_is_used_and_that_is_said(tmp_path, capsys):
    archive = write_zip(tmp_path / "slides.zip", clean_files())
    packed = find_store(archive, tmp_path / "cache", workers=1)
    archive.unlink()
    preflight("fit", [f"--data.root={archive}", f"--data.cache={tmp_path}/cache"])
    store = find_store(archive, tmp_path / "cache", workers=1)
    assert store.path == packed.path
    assert f"{archive} does not exist any more; its store {packed.path}" in capsys.readouterr().err


def test_the_cache_is_that_of_the_run_where_none_is_given(tmp_path):
    archive = write_zip(tmp_path / "slides.zip", clean_files())
    find_store(archive, tmp_path / "cache", workers=1)
    archive.unlink()
    checkpoint = write_zip(tmp_path / "run" / "checkpoints" / "best.ckpt", {"archive/data.pkl": b""})
    for command, words in (
        ("test", [f"--ckpt_path={checkpoint}", f"--data.root={archive}"]),
        ("calibrate", [str(checkpoint), f"--root={archive}"]),
    ):
        (tmp_path / "run" / "config.yaml").write_text("data: {cache: null}\n")
        with pytest.raises(InputError, match="slides.zip does not exist"):
            preflight(command, words)
        (tmp_path / "run" / "config.yaml").write_text(f"data: {{cache: {tmp_path}/cache}}\n")
        preflight(command, words)


def test_the_store_of_another_archive_of_that_name_is_named_and_not_used(tmp_path):
    packed = find_store(write_zip(tmp_path / "a" / "slides.zip", clean_files()), tmp_path / "cache", workers=1)
    manifest = json.loads((packed.path / "manifest.json").read_text())
    for source in (manifest["source"], {**manifest["source"], "path": None}):  # the second form is that of 0.1
        (packed.path / "manifest.json").write_text(json.dumps({**manifest, "source": source}))
        for look in (check_root, find_store):
            with pytest.raises(InputError, match=r"b/slides\.zip does not exist"):
                look(str(tmp_path / "b" / "slides.zip"), tmp_path / "cache")
        with pytest.raises(InputError, match="holds a store of another slides.zip, .*give it if that is the one"):
            check_root(str(tmp_path / "b" / "slides.zip"), tmp_path / "cache")


def test_a_file_that_was_removed_since_packing_is_said(tmp_path, capsys):
    folder = write_folder(tmp_path / "slides", clean_files())
    packed = find_store(folder, tmp_path / "cache", workers=1)
    sorted(folder.rglob("*.png"))[0].unlink()
    find_store(folder, tmp_path / "cache", workers=1)
    said = f"{folder} has changed since it was packed into {packed.path} (12 patches then, 11 now)"
    assert said in capsys.readouterr().err


def test_a_file_that_was_removed_since_training_is_said(tmp_path):
    folder = write_folder(tmp_path / "slides", learnable_files(cases=6))

    def open_data(root):
        data = IDCDataModule(str(root), cache=str(tmp_path / "cache"), workers=1)
        data.setup("fit")
        return data

    trained = open_data(folder).state_dict()
    open_data(folder).load_state_dict(trained)
    open_data(shutil.copytree(folder, tmp_path / "copy")).load_state_dict(trained)  # other data: nothing changed
    sorted(folder.rglob("*.png"))[0].unlink()
    # It may be refused as well: one patch less can move a case to another part.
    with pytest.warns(UserWarning, match="slides has changed since this model was trained on it"), suppress(InputError):
        open_data(folder).load_state_dict(trained)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"seed": -1}, "data.seed: expected 0 or more, got -1"), ({"loader_workers": -2}, "data.loader_workers")],
)
def test_numbers_out_of_range_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        IDCDataModule("synthetic", **arguments)
