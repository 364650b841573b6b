import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from cancernet.data.batches import PADDING, BatchSampler, Patches
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.stains import optical_density
from cancernet.data.store.find import find_store
from cancernet.errors import InputError


@pytest.fixture
def data(store):
    module = IDCDataModule(str(store.path), batch_size=16)
    module.prepare_data()
    module.setup("fit")
    return module


def rows_of(sampler: BatchSampler) -> list[int]:
    return [int(row) for batch in sampler for row in batch]


def test_a_batch_holds_what_the_store_holds(store):
    rows = np.array([5, 0, 17])
    batch = Patches(store, with_images=True, seed=0)[rows]
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (3, 3, 50, 50)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch["image"].permute(0, 2, 3, 1).numpy(), store.images[rows])
    for column in ("label", "x", "y"):
        np.testing.assert_array_equal(batch[column].numpy(), store.index[column].to_numpy()[rows])
    assert batch["index"].tolist() == [5, 0, 17]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 31, 32, 33])
def test_evaluation_meets_every_patch_once_on_any_number_of_processes(count, world_size):
    rows = np.arange(100, 100 + count)
    samplers = [BatchSampler(rows, 8, False, 0, rank, world_size) for rank in range(world_size)]
    met = [row for sampler in samplers for row in rows_of(sampler) if row != PADDING]
    assert sorted(met) == rows.tolist()
    assert len({len(list(sampler)) for sampler in samplers}) == 1
    assert all(len(list(sampler)) == len(sampler) for sampler in samplers)


def test_training_meets_every_patch_in_an_order_of_the_seed_and_the_epoch():
    rows = np.arange(50)
    sampler = BatchSampler(rows, 8, True, 3, 0, 1)
    first = rows_of(sampler)
    assert sorted(first) == rows.tolist()
    assert first == rows_of(BatchSampler(rows, 8, True, 3, 0, 1))
    sampler.set_epoch(1)
    assert rows_of(sampler) != first
    shares = [rows_of(BatchSampler(rows, 8, True, 3, rank, 2)) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == rows.tolist()
    assert rows_of(BatchSampler(rows, 8, True, 4, 0, 1)) != first


def test_more_processes_than_patches_still_share_equally():
    shares = [rows_of(BatchSampler(np.arange(2), 8, True, 0, rank, 5)) for rank in range(5)]
    assert {len(share) for share in shares} == {1}


def test_resident_and_streamed_batches_are_equal(data):
    streamed = next(iter(data.train_dataloader()))
    data.device_resident = "always"
    resident = next(iter(data.train_dataloader()))
    assert "image" not in resident
    assert torch.equal(streamed["index"], resident["index"])
    data.device_resident = "never"
    images = [data.on_after_batch_transfer(batch, 0)["image"] for batch in (streamed, resident)]
    assert torch.equal(*images)
    assert images[0].dtype == torch.float32
    assert images[0].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(
        images[0].permute(0, 2, 3, 1).numpy() * 255, data.store.images[streamed["index"].numpy()], atol=1e-4
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_of_some_rows_are_those_of_a_loader_without_augmentation(data, shuffle):
    rows = data.split.rows("test")
    ready = list(data.batches(rows, torch.device("cpu"), 16, shuffle))
    met = torch.cat([batch["index"] for batch in ready])
    assert sorted(met.tolist()) == rows.tolist()
    assert (met.tolist() == rows.tolist()) == (not shuffle)
    expected = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)["image"]
    found = torch.cat([batch["image"] for batch in ready])[met.argsort()][: len(expected)]
    assert torch.equal(found, expected)


def test_the_home_folder_may_be_written_as_a_tilde(store, archive, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").symlink_to(archive.parent)
    (tmp_path / "parts.csv").write_text(
        "case,part\n" + "".join(f"{7000 + k},train\n" for k in range(11)) + "7011,test\n"
    )
    module = IDCDataModule(f"~/data/{archive.name}", split="~/parts.csv", cache="~/cache")
    module.setup("predict")
    assert module.store.path.parent == tmp_path / "cache"
    assert set(module.split.part) == {"train", "test"}
    assert module.arguments["split"] == str(tmp_path / "parts.csv")
    assert find_store("~/data/" + archive.name, store.path.parent).path == store.path


def test_all_parts_together_are_the_data(data):
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    met = torch.cat([batch["index"] for loader in loaders for batch in loader])
    assert sorted(met.tolist()) == list(range(len(data.store)))
    assert len(torch.cat([batch["index"] for batch in data.predict_dataloader()])) == len(data.store)


def test_training_counts_are_those_of_the_training_part(data):
    labels = data.store.index["label"].to_numpy()[data.split.rows("train")]
    assert data.training_counts == ((labels == 0).sum(), (labels == 1).sum())


def test_split_by_patch_warns_that_it_leaks(store):
    module = IDCDataModule(str(store.path), split="patch")
    with pytest.warns(UserWarning, match="split is by patch"):
        module.setup("fit")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_size": 0}, "data.batch_size: expected 1 or more, got 0"),
        ({"stain_normalization": 1.5}, "data.stain_normalization: expected a share from 0 to 1, got 1.5"),
    ],
)
def test_bad_settings_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        IDCDataModule(**given)


def test_stains_go_the_share_of_the_way(data):
    batch = next(iter(data.val_dataloader()))
    images = []
    for share in (0.0, 0.5, 1.0):
        module = IDCDataModule(data.root, stain_normalization=share)
        module.setup("validate")
        images.append(optical_density(module.on_after_batch_transfer(dict(batch), 0)["image"]))
    start, half, whole = images
    assert not torch.allclose(start, whole, atol=0.05)
    between = (half - start).abs() + (whole - half).abs()
    # Somewhere on the way for nearly every pixel: the scale is a quotient, so not just in the middle.
    assert ((between - (whole - start).abs()) < 0.02).float().mean() > 0.9


@pytest.mark.filterwarnings("ignore:This split is by patch")
@pytest.mark.parametrize(("stage", "split", "seed"), [("test", "case", 1), ("test", "patch", 0), ("fit", "case", 1)])
def test_checkpoint_state_refuses_what_the_model_has_seen(data, stage, split, seed):
    other = IDCDataModule(data.root, split=split, seed=seed)
    other.setup({"fit": TrainerFn.FITTING, "test": TrainerFn.TESTING}[stage])
    with pytest.raises(InputError, match="this model"):
        other.load_state_dict(data.state_dict())


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_checkpoint_state_accepts_its_own_split(data, stage):
    again = IDCDataModule(data.root)
    again.setup(stage)
    again.load_state_dict(data.state_dict())
