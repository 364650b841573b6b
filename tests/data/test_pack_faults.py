import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cancernet import files
from cancernet.data import processes
from cancernet.data.store import decode_pool
from cancernet.data.store import pack as pack_module
from cancernet.data.store.pack import pack
from cancernet.data.store.store import open_store
from cancernet.errors import InputError
from tests.data.drawing import clean_files, write_folder, write_zip

ROOT = Path(__file__).parents[2]


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "archive.zip", clean_files())


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


PACKING = """
import sys, time
from pathlib import Path
from cancernet.data.store import decode_pool, decode_worker
from cancernet.data.store.pack import pack
decode_pool.CHUNK = 1
decode = decode_worker.ChunkDecoder.__call__
def decode_when_told(self, chunk):
    while not Path(sys.argv[3]).exists():
        time.sleep(0.01)
    return decode(self, chunk)
if {held}:
    decode_worker.ChunkDecoder.__call__ = decode_when_told
pack(sys.argv[1], sys.argv[2], workers={workers}, progress=False)
"""


def test_a_script_through_a_pipe_and_without_a_guard_packs_with_processes(archive, tmp_path):
    code = PACKING.format(held=False, workers=2).replace("import sys, time", "import sys, time; print('ran')")
    command = [sys.executable, "-", str(archive), str(tmp_path / "store")]
    done = subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ran"]
    assert len(open_store(tmp_path / "store")) == 12


def start_packing(archive, output, held=True, workers=1):
    """Start a packing; one that is held goes on when there is a file `go` next to the archive."""
    code = PACKING.format(held=held, workers=workers)
    return subprocess.Popen([sys.executable, "-c", code, archive, output, archive.with_name("go")], cwd=ROOT)


def wait_for(condition, seconds=300.0):
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
    process = start_packing(archive, output, held=False, workers=2)
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


@pytest.mark.skipif(files.fcntl is None, reason="no locks of this kind on Windows")
def test_of_two_packings_at_once_the_second_waits_and_says_so(archive, tmp_path, capsys):
    output, go, said = tmp_path / "store", tmp_path / "go", []
    first = start_packing(archive, output)
    wait_for(lambda: list(tmp_path.glob(".store.*.partial/store/images.npy")))

    def let_go():
        wait_for(lambda: said.append(capsys.readouterr().err) or "another process is making it" in "".join(said))
        go.touch()

    other = threading.Thread(target=let_go)
    other.start()
    second = pack(archive, output, workers=1, progress=False)
    other.join()
    assert f"{output}: another process is making it; waiting for that" in "".join(said)
    assert first.wait() == 0
    assert not second.fresh
    second.verify(progress=False)
    go.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.zip", "store"]


@pytest.mark.skipif(files.fcntl is None, reason="no locks of this kind on Windows")
def test_where_the_first_of_two_packings_is_killed_the_second_packs(archive, tmp_path):
    output = tmp_path / "store"
    first = start_packing(archive, output)
    wait_for(lambda: list(tmp_path.glob(".store.*.partial/store/images.npy")))
    threading.Timer(0.2, first.kill).start()
    second = pack(archive, output, workers=1, progress=False)
    first.wait()
    assert second.fresh
    second.verify(progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.zip", "store"]
