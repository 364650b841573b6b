import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cancernet.data import processes
from cancernet.data.audit import audit, prepare, render
from cancernet.data.store import decode_pool
from cancernet.data.store import pack as pack_module
from cancernet.data.store import store as stores
from cancernet.data.store.decode import decode_patch
from cancernet.data.store.find import find_store
from cancernet.data.store.pack import pack
from cancernet.data.store.store import open_store
from cancernet.errors import InputError
from tests.data.drawing import clean_files, draw_png, patch_path, trapped_files, write_folder, write_table, write_zip

ROOT = Path(__file__).parents[2]
SAMPLE = Path(os.environ.get("CANCERNET_SAMPLE", ROOT.parent / "shared" / "data" / "idc-sample.zip"))


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
    files = {"a.png": draw_png(1), "b.png": draw_png(2, 20, 30)}
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


def test_outputs_that_are_something_else_are_left_alone(archive, tmp_path):
    other = write_folder(tmp_path / "other", {"thesis.txt": b"precious"})
    with pytest.raises(InputError, match="exists and is not a store"):
        pack(archive, other, workers=1, progress=False)
    with pytest.raises(InputError, match="exists and is not a store"):
        pack(archive, archive, workers=1, progress=False)
    folder = write_folder(tmp_path / "folder", clean_files())
    with pytest.raises(InputError, match="inside the archive"):
        pack(folder, folder / "store", workers=1, progress=False)
    pack(folder, tmp_path / "store", workers=1, progress=False)
    with pytest.raises(InputError, match="store of another archive"):
        pack(archive, tmp_path / "store", workers=1, progress=False)
    with pytest.raises(InputError, match="workers must be 1 or more"):
        pack(archive, tmp_path / "new", workers=0, progress=False)
    assert (other / "thesis.txt").read_bytes() == b"precious"


def test_a_damaged_store_is_refused_and_packed_again_in_place(archive, tmp_path, capsys):
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    assert not pack(archive, store.path, workers=1, progress=False).fresh
    with (store.path / "images.npy").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(InputError, match=r"images\.npy has 5,000 bytes.*pack the archive again"):
        open_store(store.path)
    again = pack(archive, store.path, workers=1, progress=False)
    assert again.fresh
    again.verify(progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.zip", "store"]


def test_a_changed_byte_is_found_by_verify(archive, tmp_path):
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    with (store.path / "images.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"\0\1\2")
    with pytest.raises(InputError, match="checksum differs"):
        open_store(store.path).verify(progress=False)


def test_what_is_no_store_is_refused(archive, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_store(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a finished store"):
        open_store(tmp_path)
    store = pack(archive, tmp_path / "store", workers=1, progress=False)
    for change, message in (({"version": 2}, "version 2"), ({"patches": 11}, "for 11 patches")):
        (store.path / "manifest.json").write_text(json.dumps(store.manifest | change))
        with pytest.raises(InputError, match=message):
            open_store(store.path)


def test_too_little_disk_or_memory_stops_before_a_byte_is_written(archive, tmp_path, monkeypatch, capsys):
    disk = pack_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pack_module.shutil, "disk_usage", lambda path: disk._replace(free=1000))
    with pytest.raises(InputError, match="free the disk"):
        pack(archive, tmp_path / "store", workers=1)
    assert "of disk" in capsys.readouterr().err
    monkeypatch.undo()
    memory = pack_module.psutil.virtual_memory()
    monkeypatch.setattr(pack_module.psutil, "virtual_memory", lambda: memory._replace(available=1000))
    with pytest.raises(InputError, match="of memory"):
        pack(archive, tmp_path / "store", workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


def test_an_interruption_leaves_nothing(archive, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pack_module, "_write_index", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack(archive, tmp_path / "store", workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


def test_a_full_disk_is_said_in_one_line(archive, tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decode_pool.ChunkDecoder, "_write", fill)
    with pytest.raises(InputError, match="No space left on device"):
        pack(archive, tmp_path / "store", workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


SLOW_PACKING = """
import sys, time
from cancernet.data.store import decode_pool, decode_worker
from cancernet.data.store.pack import pack
decode_pool.CHUNK = 1
decode_slowly = decode_worker.ChunkDecoder.__call__
def decode_with_a_pause(self, chunk):
    time.sleep(0.05)
    return decode_slowly(self, chunk)
if {slow}:
    decode_worker.ChunkDecoder.__call__ = decode_with_a_pause
pack(sys.argv[1], sys.argv[2], workers={workers}, progress=False)
"""


def test_a_script_through_a_pipe_and_without_a_guard_packs_with_processes(archive, tmp_path):
    code = SLOW_PACKING.format(slow=False, workers=2).replace("import sys, time", "import sys, time; print('ran')")
    command = [sys.executable, "-", str(archive), str(tmp_path / "store")]
    done = subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ran"]
    assert len(open_store(tmp_path / "store")) == 12


def start_packing(archive, output, slow=True, workers=1):
    code = SLOW_PACKING.format(slow=slow, workers=workers)
    return subprocess.Popen([sys.executable, "-c", code, str(archive), str(output)], cwd=ROOT)


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_killed_packing_is_no_store_and_leaves_no_process(tmp_path):
    archive = write_zip(tmp_path / "archive.zip", clean_files(cases=40, columns=10, rows=10))
    output = tmp_path / "store"
    process = start_packing(archive, output, slow=False, workers=2)
    wait_for(lambda: len(children(process.pid)) >= 2 and list(tmp_path.glob(".store.*.partial/store/images.npy")))
    (partial,) = tmp_path.glob(".store.*.partial/store")
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.is_dir()
    assert not output.exists()
    with pytest.raises(InputError, match="not a finished store"):
        open_store(partial)
    wait_for(lambda: not any(map(alive, workers)))
    store = pack(archive, output, workers=1, progress=False)
    store.verify(progress=False)
    assert len(store) == 4000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.zip", "store"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_a_worker_that_dies_ends_the_packing_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "CHUNK", 2)
    archive = write_zip(tmp_path / "archive.zip", clean_files(cases=10))
    submitted = decode_pool.decode_chunk

    class Pool(processes.ProcessPoolExecutor):
        def submit(self, function, /, *arguments, **named):
            future = super().submit(function, *arguments, **named)
            for process in self._processes.values():
                process.kill()
            return future

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Pool)
    with pytest.raises(InputError, match="was ended from outside"):
        pack(archive, tmp_path / "store", workers=2, progress=False)
    assert submitted is decode_pool.decode_chunk
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


def test_two_packings_at_once_both_end_well(archive, tmp_path):
    output = tmp_path / "store"
    slow = start_packing(archive, output)
    wait_for(lambda: list(tmp_path.glob(".store.*.partial/store/images.npy")))
    fast = pack(archive, output, workers=1, progress=False)
    inode = (output / "images.npy").stat().st_ino
    assert slow.wait(timeout=60) == 0
    assert (output / "images.npy").stat().st_ino == inode
    fast.verify(progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.zip", "store"]


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
