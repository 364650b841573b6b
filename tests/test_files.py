import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cancernet import files
from cancernet.errors import InputError
from cancernet.files import new_folder, remove_folder, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(file) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert file.read_text() == "old"
    with replacing(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_link_stays_a_link(tmp_path):
    file, link = tmp_path / "last.ckpt", tmp_path / "link.ckpt"
    file.write_text("old")
    link.symlink_to(file)
    with replacing(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_writing_nothing_leaves_the_old_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(InputError, match="No such file"), replacing(file):
        pass
    assert file.read_text() == "old"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt), new_folder(folder) as partial:
        (partial / "file").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()  # an empty one may stand there
    with new_folder(folder) as partial:
        (partial / "file").write_text("whole")
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.rglob("*")] == ["store", "file"]


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("precious")
    with pytest.raises(OSError, match="not empty"), new_folder(tmp_path / "store") as partial:
        (partial / "file").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["store", "thesis.txt"]
    remove_folder(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_writers_of_one_file_at_the_same_time_do_not_meet(tmp_path):
    file = tmp_path / "file"
    with replacing(file) as one, replacing(file) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one"  # the outer one ended last
    assert list(tmp_path.iterdir()) == [file]


WRITER = """
import sys, time
from cancernet.files import replacing
with replacing(sys.argv[1]) as partial:
    partial.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(files.fcntl is None, reason="no locks of this kind on Windows")
def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_kept(tmp_path):
    file = tmp_path / "file"
    command = [sys.executable, "-c", WRITER, str(file)]
    processes = [subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert len(list(tmp_path.glob(".file.*.partial"))) == 2
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        with replacing(file) as partial:
            partial.write_text("whole")
        assert len(list(tmp_path.glob(".file.*.partial"))) == 1
        assert file.read_text() == "whole"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    with replacing(file) as partial:
        partial.write_text("again")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_leftovers_without_a_lock_are_removed_when_they_are_old(tmp_path):
    """Of version 0.1, which named the process (on this machine or another), and of a writer killed at its start."""
    for name, age in {"store.partial-1": 2, "store.partial-2": 0, ".store.x.partial": 2, ".store.y.partial": 0}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "owner.json").write_text('{"host": "another machine"}')
        os.utime(folder, (time.time() - age * files.ABANDONED_AFTER,) * 2)
    (tmp_path / "store.partial-3.zip").write_text("")
    os.utime(tmp_path / "store.partial-3.zip", (0, 0))
    with new_folder(tmp_path / "store"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.y.partial", "store", "store.partial-2"]
