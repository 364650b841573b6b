import io
import os
import sys
from pathlib import Path

import pytest

from cancernet.data.audit import audit, prepare, render
from cancernet.data.store import pack as pack_module
from cancernet.data.store import store as stores
from cancernet.data.store.find import find_store
from cancernet.data.store.pack import pack
from cancernet.errors import InputError
from tests.data.drawing import clean_files, trapped_files, write_zip

ROOT = Path(__file__).parents[2]
SAMPLE = Path(os.environ.get("CANCERNET_SAMPLE", ROOT.parent / "shared" / "data" / "idc-sample.zip"))


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "archive.zip", clean_files())


def test_the_store_is_found_again_in_the_cache(archive, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = find_store(archive, cache)
    assert first.fresh
    assert first.path.parent == cache
    assert first.path.name == f"archive-{first.manifest['source']['fingerprint'][:16]}"
    monkeypatch.setattr(pack_module, "decode_listing", None)
    again = find_store(str(archive), cache)
    assert (again.path, again.fresh) == (first.path, False)
    assert find_store(first.path, cache).path == first.path


def test_the_users_cache_is_the_default(archive, tmp_path, monkeypatch):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "user" / name)
    assert find_store(archive).path.parent == tmp_path / "user" / "cancernet"


def test_the_synthetic_archive_is_generated_once(tmp_path, monkeypatch):
    import types

    generated = []

    def synthesize(output, cases, seed):
        generated.append((cases, seed))
        write_zip(output, {"SYNTHETIC.json": b"{}", **clean_files(cases=cases)})

    module = types.SimpleNamespace(DEFAULT_CASES=2, DEFAULT_SEED=0, GENERATOR="g1", synthesize=synthesize)
    monkeypatch.setitem(sys.modules, "cancernet.data.synthetic.archive", module)
    for _ in range(2):
        store = find_store("synthetic", tmp_path / "cache")
        assert store.synthetic
    assert generated == [(2, 0)]
    assert "SYNTHETIC" in audit(store).verdict
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_prepare_prints_the_audit_and_last_the_path(tmp_path, capsys):
    files, _ = trapped_files()
    archive = write_zip(tmp_path / "archive.zip", files)
    assert prepare(str(archive), output=tmp_path / "store", workers=1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(tmp_path / "store")
    text = "\n".join(lines)
    assert "this is not the full archive: 0.0 % of its patches" in text
    assert "277,524" in text
    assert "notes.txt: foreign file" in text
    with (tmp_path / "store" / "images.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"\0\1\2")
    with pytest.raises(InputError, match="checksum differs"):
        prepare(str(archive), output=tmp_path / "store", workers=1)
    with pytest.raises(InputError, match="packed store already"):
        prepare(str(tmp_path / "store"), output=tmp_path / "other")


def test_the_audit_knows_the_full_archive(archive, tmp_path):
    from rich.console import Console

    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    full = {"patches": 277_524, "cases": 279, "idc": 78_786, "benign": 198_738, "duplicates": 277_524}
    store.manifest["audit"] |= full
    assert audit(store).verdict == "this is the full archive"
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(render(audit(store)))
    assert "this is the full archive" in console.export_text()
    assert stores.PatchStore(store.path, {**store.manifest, "synthetic": True}).synthetic


@pytest.mark.skipif(not SAMPLE.exists(), reason="the real sample is not here")
def test_the_real_sample_holds_what_it_is_said_to(tmp_path):
    counts = audit(pack(SAMPLE, tmp_path / "store", progress=False))
    assert (counts.patches, counts.cases, counts.idc) == (8506, 166, 2165)
    assert (counts.edge_patches, counts.duplicates, counts.rejects) == (63, 97, ())
    assert counts.verdict == "this is not the full archive: 3.1 % of its patches"
