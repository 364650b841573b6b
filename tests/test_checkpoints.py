"""Checkpoints that were damaged, or hold what no network should be built from."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cancernet.checkpoints import read_checkpoint, replace_checkpoint
from cancernet.errors import InputError


def content() -> dict:
    random = torch.Generator().manual_seed(0)
    return {
        "state_dict": {f"network.{name}": torch.randn(200, generator=random) for name in "abc"},
        "cancernet": {"network": "cancernet", "classes": 2, "image_size": 50, "calibration": None},
        "IDCDataModule": {"arguments": {}, "description": {}, "exposure": {"unit": "case"}},
    }


@pytest.fixture
def file(tmp_path) -> Path:
    replace_checkpoint(tmp_path / "a.ckpt", content())
    return tmp_path / "a.ckpt"


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    return one == other


@pytest.mark.parametrize("mapped", [True, False])
def test_a_flipped_bit_is_found_or_changes_nothing(file, mapped):
    """Nothing but padding and dates is without a checksum in the file."""
    whole, refusals = file.read_bytes(), []
    random = np.random.default_rng(0)
    for place in random.integers(0, 8 * len(whole), 300):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        try:
            read = read_checkpoint(file, mapped=mapped)
        except InputError as error:
            refusals.append(str(error))
        else:
            assert equal(read, content()), place
    assert len(refusals) > 100
    assert all(str(file) in words and "\n" not in words for words in refusals)


def test_a_file_cut_anywhere_is_refused(file):
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a checkpoint that can be read safely"):
            read_checkpoint(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("entry", ["state_dict", "current_model_state", "trained_statistics"])
def test_weights_that_are_not_finite_are_refused(entry, value, tmp_path):
    poisonous = content()
    where = poisonous["cancernet"] if entry == "trained_statistics" else poisonous
    where[entry] = {"network.a": torch.tensor([0.0, value])}
    replace_checkpoint(tmp_path / "a.ckpt", poisonous)
    with pytest.raises(InputError, match=r"a.ckpt: its weight network.a holds values that are not finite"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("entry", "name"),
    [("cancernet", "network"), ("cancernet", "classes"), ("cancernet", "image_size"), ("IDCDataModule", "exposure")],
)
def test_entries_that_are_there_in_part_are_named(entry, name, tmp_path):
    partial = content()
    for change in (lambda: partial[entry].__setitem__(name, None), lambda: partial[entry].pop(name)):
        change()
        replace_checkpoint(tmp_path / "a.ckpt", partial)
        with pytest.raises(InputError, match=f"a.ckpt: its entry {entry} lacks {name}"):
            read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("entry", ["state_dict", "cancernet", "IDCDataModule", "hyper_parameters"])
def test_entries_of_another_kind_are_named(entry, tmp_path):
    replace_checkpoint(tmp_path / "a.ckpt", content() | {entry: [1]})
    with pytest.raises(InputError, match=f"a.ckpt: its entry {entry} is of another kind"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_weight_that_is_no_tensor_is_named(tmp_path):
    replace_checkpoint(tmp_path / "a.ckpt", content() | {"state_dict": {"network.a": 1.0}})
    with pytest.raises(InputError, match="its weight network.a is no tensor"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_and_not_run(tmp_path, legacy):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    with (tmp_path / "a.ckpt").open("wb") as file:
        if legacy:
            torch.save(content() | {"cancernet": Hostile()}, file, _use_new_zipfile_serialization=False)
        else:
            pickle.dump(Hostile(), file)
    for mapped in (True, False):
        with pytest.raises(InputError, match="not a checkpoint that can be read safely"):
            read_checkpoint(tmp_path / "a.ckpt", mapped=mapped)
    assert not (tmp_path / "ran").exists()
