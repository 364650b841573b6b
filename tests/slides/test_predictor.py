import ast
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cancernet
from cancernet.checkpoints import read_checkpoint
from cancernet.data.store.find import find_store
from cancernet.errors import InputError
from cancernet.slides.images import to_patches
from cancernet.training.task import ClassificationTask
from tests.slides.drawing import TEMPERATURE, THRESHOLD, write_checkpoint


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(0).integers(0, 256, (70, 50, 50, 3), dtype=np.uint8)


def test_logits_are_those_of_the_task_and_calls_those_of_the_threshold(predictor, checkpoint, patches):
    found = predictor.predict(patches)
    task = ClassificationTask.load_from_checkpoint(checkpoint).eval()
    with torch.inference_mode():
        expected = task(torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255).numpy()
    np.testing.assert_allclose(found.logit, expected, atol=1e-5)
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-found.logit.astype(np.float64))))
    np.testing.assert_allclose(found.calibrated, 1 / (1 + np.exp(-found.logit.astype(np.float64) / TEMPERATURE)))
    np.testing.assert_array_equal(found.call, found.probability >= THRESHOLD)
    assert list(found.table) == ["logit", "probability", "probability_calibrated", "call"]


def test_a_patch_has_the_same_logit_alone_and_in_company(predictor, patches):
    together = predictor.predict(patches).logit
    for number in (0, 63, 64, 69):
        assert predictor.predict(patches[number]).logit[0] == together[number]


def test_threads_change_no_logit(checkpoint, patches):
    model = cancernet.load(checkpoint)
    found = []
    for number in (1, 3):
        with ThreadPoolExecutor(number, "predict", torch.set_num_threads, (1,)) as model._threads:
            found.append(model.logits(patches))
    np.testing.assert_array_equal(*found)


def test_test_time_augmentation_is_that_of_the_checkpoint(tmp_path, patches):
    plain = cancernet.load(write_checkpoint(tmp_path / "plain.ckpt"))
    averaged = cancernet.load(write_checkpoint(tmp_path / "tta.ckpt", tta=True))
    plain.batch_size = averaged.batch_size = 4
    turned = averaged.predict([np.rot90(patches[0]).copy(), patches[0][:, ::-1].copy(), patches[0]]).logit
    assert np.ptp(turned) < 1e-5
    assert np.ptp(plain.predict([np.rot90(patches[0]).copy(), patches[0]]).logit) > 1e-5


def test_files_pillow_images_and_arrays_are_taken(predictor, patches, tmp_path):
    path = tmp_path / "pätch 'a' <b>.png"
    Image.fromarray(patches[0]).save(path)
    expected = predictor.predict(patches[:1]).logit[0]
    for images in (path, str(path), Image.fromarray(patches[0]), [patches[0]], [path], patches[0]):
        assert predictor.predict(images).logit.tolist() == [expected]
    assert len(predictor.predict([])) == 0
    assert len(predictor.predict([path, Image.fromarray(patches[1]), patches[2]])) == 3


def test_without_calibration_the_threshold_is_a_half(tmp_path, patches):
    found = cancernet.load(write_checkpoint(tmp_path / "plain.ckpt", calibrated=False)).predict(patches[:3])
    assert found.threshold == 0.5
    assert np.isnan(found.calibrated).all()


def test_sizes_are_resized_padded_or_refused_and_said(predictor, caplog):
    grey = np.full((224, 224, 3), 150, np.uint8)
    with caplog.at_level(logging.WARNING, "cancernet"):
        (note,) = predictor.predict([grey, grey[:48, :48]]).notes
    assert note.startswith("images of 48 to 224 pixels resized to 50x50")
    assert note in caplog.text
    assert predictor.predict([grey[:33, :50]]).notes == ()
    with pytest.raises(InputError, match="so a region"):
        predictor.predict(np.tile(grey, (5, 5, 1)))
    with pytest.raises(InputError, match="smaller than half a patch"):
        predictor.predict(grey[:24, :24])


def test_a_scale_cuts_the_middle_and_names_too_little_tissue(predictor):
    random = np.random.default_rng(1)
    wide = random.integers(0, 256, (150, 150, 3), dtype=np.uint8)
    cut = predictor.predict(wide, mpp=4.0)
    assert cut.logit[0] == predictor.predict(wide[50:100, 50:100]).logit[0]
    assert "only their middle counts" in cut.notes[0]
    (note,) = predictor.predict(random.integers(0, 256, (224, 224, 3), dtype=np.uint8), mpp=0.5).notes
    assert "hold 112 micrometres of tissue where a patch holds 200" in note
    with pytest.raises(InputError, match="smaller than half a patch"):
        predictor.predict(wide, mpp=0.25)
    with pytest.raises(InputError, match="above 0"):
        predictor.predict(wide, mpp=0)


def test_a_file_gives_the_number_that_predict_gives(predictor, tmp_path):
    """The same pixels, whether a data module packs the file or it is given from Python."""
    pixels = np.random.default_rng(2).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "patch.png")
    packed = find_store(tmp_path / "patch.png", tmp_path / "cache", workers=1).images
    np.testing.assert_array_equal(to_patches([pixels])[0], packed)


def test_stains_of_single_patches_are_left_and_that_is_said(predictor, tmp_path, patches):
    found = cancernet.load(write_checkpoint(tmp_path / "stains.ckpt", stains=0.5)).predict(patches[:3])
    assert "stains were left as they are" in found.notes[0]
    np.testing.assert_array_equal(found.logit, predictor.predict(patches[:3]).logit)


@pytest.mark.filterwarnings("ignore:Runs through Keras")
def test_a_network_that_only_the_user_may_name_is_not_run(tmp_path):
    own = {"network": "tests.model.networks.build", "image_size": 32}
    path = write_checkpoint(tmp_path / "own.ckpt", **own)
    with pytest.raises(InputError, match="name it yourself: network="):
        cancernet.load(path)
    assert len(cancernet.load(path, network=own["network"]).predict(np.zeros((1, 50, 50, 3), np.uint8))) == 1


def test_keras_sees_the_same_network(predictor, checkpoint, patches):
    model = predictor.keras_model
    with torch.inference_mode():
        probability = model(torch.from_numpy(patches[:4]).float() / 255)[:, 1].numpy()
    np.testing.assert_allclose(predictor.predict(patches[:4]).probability, probability, atol=1e-6)
    weights = sum(
        value.numel() for name, value in read_checkpoint(checkpoint)["state_dict"].items() if "kernel" in name
    )
    assert weights == sum(int(np.prod(weight.shape)) for weight in model.weights if "kernel" in weight.path)


@pytest.mark.parametrize(
    "image", [np.zeros((50, 50), np.uint8), np.zeros((50, 50, 4), np.uint8), np.zeros((50, 50, 3), np.float32)]
)
def test_arrays_of_another_shape_or_type_are_refused(predictor, image):
    with pytest.raises(InputError, match="expected an image as uint8"):
        predictor.predict([image])


def test_a_map_waits_for_no_import_of_lightning():
    """Which takes as long as torch itself: what is imported at the top of a module, followed through the package."""
    root, seen, waiting = Path(cancernet.__file__).parent.parent, set(), ["cancernet.slides.command"]
    while waiting:
        name = waiting.pop()
        seen |= {name, name.partition(".")[0]}
        place = root.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if not file.is_file():
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                found = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            parents = [each.rsplit(".", count)[0] for each in found for count in range(each.count(".") + 1)]
            waiting += set(parents) - seen
    assert {"cancernet.training.inference", "torch", "keras"} <= seen
    assert not {"lightning", "torchmetrics", "sklearn"} & seen
