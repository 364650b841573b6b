"""What a large store costs in memory: counted in bytes, for a store whose index is real and whose pixels are a hole."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from cancernet.data.batches import BatchSampler, Patches
from cancernet.data.splits import make_split
from cancernet.data.store.store import PatchStore, open_store
from cancernet.data.training_record import SEEN, TrainingRecord
from scripts.benchmarks.memory import make_sparse_store

PATCHES = 20_000
BYTES_OF_A_PATCH = 160
"""In memory of Python and NumPy, at the peak; the strings of its path and case alone would be more."""


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> PatchStore:
    return make_sparse_store(tmp_path_factory.mktemp("sparse") / "store", PATCHES)


@pytest.mark.parametrize("name", ["case", "patch"])
def test_no_string_is_made_for_each_patch(sparse, name):
    tracemalloc.start()
    try:
        index = open_store(sparse.path).index
        split = make_split(index, name)
        record = TrainingRecord.of(split, index)
        record.refuse(index, split.rows("test"), SEEN, "test")
        patches = Patches(sparse, with_images=False, seed=0)
        sampler = BatchSampler(split.rows("train"), 32, True, 0, 0, 1)
        batch = patches[next(iter(sampler))]
        if name == "case":
            split.table(index)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert batch["label"].dtype.itemsize == 8
    assert peak / PATCHES < BYTES_OF_A_PATCH


def test_the_index_says_the_same_as_a_plain_table(sparse):
    index, plain = sparse.index, pd.read_parquet(sparse.path / "index.parquet")
    assert list(index.columns) == list(plain.columns)
    for column in plain.columns:
        assert index[column].astype(plain[column].dtype).equals(plain[column])
    for name in ("case", "patch", "extended"):
        first, second = make_split(index, name), make_split(plain, name)
        assert (first.part == second.part).all()
        pd.testing.assert_frame_equal(
            first.table(index).astype({"case": str}), second.table(plain).astype({"case": str}), check_dtype=False
        )
        records = [TrainingRecord.of(first, index), TrainingRecord.of(second, plain)]
        assert records[0].cases == records[1].cases
        np.testing.assert_array_equal(records[0].patches["train"], records[1].patches["train"])
