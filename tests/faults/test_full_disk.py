"""Disks that are full or read-only: one line that names the place, nothing half-written, the old file left."""

import pytest
import torch

from cancernet.checkpoints import read_checkpoint, replace_checkpoint
from cancernet.errors import InputError
from cancernet.files import require_space, write_text


def content(size: int) -> dict:
    described = {"network": "cancernet", "classes": 2, "image_size": 50}
    return {"state_dict": {"network.a": torch.ones(size // 4)}, "cancernet": described}


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(make_disk):
    disk = make_disk(4)
    file = disk.path / "checkpoints" / "best.ckpt"
    replace_checkpoint(file, content(1 << 20))
    with pytest.raises(InputError, match=f"{file}: cannot be written .No space left on device"):
        replace_checkpoint(file, content(8 << 20))
    assert len(read_checkpoint(file)["state_dict"]["network.a"]) == 1 << 18
    assert [path.name for path in file.parent.iterdir()] == ["best.ckpt"]


def test_a_text_file_that_does_not_fit_leaves_the_old_one(make_disk):
    disk = make_disk(1)
    write_text(disk.path / "metrics.json", "old")
    with pytest.raises(InputError, match="No space left on device"):
        write_text(disk.path / "metrics.json", "new" * (1 << 20))
    assert (disk.path / "metrics.json").read_text() == "old"
    assert [path.name for path in disk.path.iterdir()] == ["metrics.json"]


def test_want_of_space_and_of_permission_is_found_ahead_of_the_work(make_disk):
    disk = make_disk(1)
    require_space(disk.path / "run" / "new", 1 << 19)
    with pytest.raises(InputError, match=r"new: cannot be written \(2.0 MB are needed and 1.0 MB are free\)"):
        require_space(disk.path / "run" / "new", 2_000_000)
    assert list(disk.path.iterdir()) == []
    disk.make_read_only()
    with pytest.raises(InputError, match=r"new: cannot be written \(Read-only file system\)"):
        require_space(disk.path / "run" / "new", 1)
    with pytest.raises(InputError, match="a.ckpt: cannot be written .Read-only file system"):
        replace_checkpoint(disk.path / "a.ckpt", content(8))
