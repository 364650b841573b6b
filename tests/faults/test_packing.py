"""Packings that meet: in containers of their own, and several first uses of one archive."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cancernet.data.store.store import open_store
from tests.data.drawing import clean_files, write_zip

ROOT = Path(__file__).parents[2]
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""Runs a command in a PID namespace, as a container does: its process numbers are its own."""
PACK = """
import sys, time
from cancernet.data.store import decode_pool, decode_worker
from cancernet.data.store.find import find_store
decode_pool.CHUNK = 1
decode = decode_worker.ChunkDecoder.__call__
decode_worker.ChunkDecoder.__call__ = lambda self, chunk: (time.sleep(0.5), decode(self, chunk))[1]
print("packed" if find_store(sys.argv[1], sys.argv[2], workers=1).fresh else "found")
"""


@pytest.fixture
def archive(tmp_path) -> Path:
    return write_zip(tmp_path / "archive.zip", clean_files())


def start(archive: Path, cache: Path, before: list[str]) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", PACK, str(archive), str(cache)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_it_writes(cache: Path) -> None:
    end = time.monotonic() + 60
    while not list(cache.glob(".*.partial/*/images.npy")):
        assert time.monotonic() < end
        time.sleep(0.01)


def require_containers() -> None:
    done = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no PID namespaces here: {done.stderr.strip()}")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_packing_killed_in_one_container_does_not_harm_that_of_another(killed, archive, tmp_path):
    require_containers()
    cache = tmp_path / "cache"
    first = start(archive, cache, CONTAINER)
    until_it_writes(cache)
    second = start(archive, cache, CONTAINER)
    assert second.stderr is not None
    assert "another process is making it; waiting for that" in second.stderr.readline()
    both = [first, second]
    both[killed].send_signal(signal.SIGKILL)
    both[killed].communicate()
    out, _ = both[1 - killed].communicate(timeout=120)
    assert out.strip() == "packed"
    (entry,) = cache.iterdir()
    open_store(entry).verify(progress=False)


def test_six_first_uses_at_once_pack_once(archive, tmp_path):
    cache = tmp_path / "cache"
    processes = [start(archive, cache, []) for _ in range(6)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    assert sorted(out.strip() for out, _ in said) == ["found"] * 5 + ["packed"]
    (entry,) = cache.iterdir()
    open_store(entry).verify(progress=False)


def test_a_leftover_of_another_host_is_removed_when_its_lock_is_free(archive, tmp_path):
    """Its process number, host name and age say nothing here; the lock does."""
    cache = tmp_path / "cache"
    leftover = cache / ".another-0123456789abcdef.x7y.partial"
    leftover.mkdir(parents=True)
    (leftover / ".cancernet-lock").touch()
    (leftover / "images.npy").write_bytes(b"half")
    os.utime(leftover)
    out, _ = start(archive, cache, []).communicate(timeout=120)
    assert out.strip() == "packed"
    assert [path.name.partition("-")[0] for path in cache.iterdir()] == ["archive"]
