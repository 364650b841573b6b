"""What scripts/fuzz found, and what was read in the code next to it: each input is refused in one line."""

import io
import json
import struct
import zipfile

import h5py
import pytest

from cancernet.data.splits import make_split
from cancernet.data.training_record import TrainingRecord
from cancernet.errors import InputError
from cancernet.evaluation.context.cases import parts_of_cases
from cancernet.evaluation.run_folder import read_predictions
from cancernet.model.keras_files.weights import read_weights
from cancernet.model.network import CancerNet
from cancernet.training.checkpoints import recorded_settings
from tests.data.indexes import draw_index
from tests.evaluation.run_folders import draw_run


def refused(call, *arguments):
    with pytest.raises(InputError) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"case,part\n", "names no case"),
        (b"name,part\na,test\n", "columns part and case (or path) are needed, found name, part"),
        (b'"path,part\nt', "found path,part t; give"),
        (b"case,part\na\n", "line 2: cannot be read as CSV"),
        (b"case,part\na,\0test\n", "unknown part"),
        (b"case,part\n\xff,test\n", "is not UTF-8 text"),
        (b'case,part\n"' + b"a" * 200_000 + b",test\n", "cannot be read as CSV"),
        (b"case,part\na,testing\n", "unknown part 'testing'"),
    ],
)
def test_a_split_file_that_says_nothing(content, words, tmp_path):
    (tmp_path / "parts.csv").write_bytes(content)
    said = refused(make_split, draw_index(["a", "b", "c"]), str(tmp_path / "parts.csv"))
    assert words in said.replace("\x00", "")
    assert "parts.csv" in said
    assert "Kaggle" not in said


def test_a_split_file_of_a_spreadsheet_in_another_country(tmp_path):
    (tmp_path / "parts.csv").write_bytes("\ufeffcase;part\r\na;train\r\nb;test\r\n".encode())
    split = make_split(draw_index(["a", "b", "c"]), str(tmp_path / "parts.csv"))
    assert set(split.part) == {"train", "test", "outside"}


@pytest.mark.parametrize("content", [b"", b"{\x04}", b"case\n8000\n", b"\xff\xfe\n", b'case,part\n"'])
def test_a_broken_split_in_a_run_folder(content, tmp_path):
    folder = draw_run(tmp_path / "run", cases=3, side=3, draws=20)
    (folder / "split.csv").write_bytes(content)
    assert "split.csv" in refused(parts_of_cases, read_predictions(folder), folder)


@pytest.mark.parametrize("change", [{"images": 1}, {"cases": {}}, {"patches": {"train": "x", "validation": "y"}}])
def test_a_record_of_what_was_seen_with_other_entries(change):
    assert "is damaged" in refused(TrainingRecord.from_state, TrainingRecord.unknown().state() | change)


@pytest.mark.parametrize("optimizer", [{"nGme": "adamw"}, "adamw", {1: 2}])
def test_a_checkpoint_with_settings_of_other_names(optimizer):
    assert "record of its optimizer" in refused(recorded_settings, {"hyper_parameters": {"optimizer": optimizer}})


@pytest.mark.parametrize(("number", "size"), [(0, 2**64 - 16), (1, 2**64 - 16), (2, 2**64 - 16), (3, 0)])
def test_a_heap_of_hdf5_that_its_library_would_read_for_ever(number, size, tmp_path):
    file = tmp_path / "weights.h5"
    with h5py.File(file, "w") as content:
        for name in ("backend", "keras_version", "model_config"):
            content.attrs[name] = "{}"
    whole = bytearray(file.read_bytes())
    assert "not a Sequential" in refused(read_weights, file)
    place = whole.index(b"GCOL") + 16 + 24 * number  # each object has 16 bytes before its own 8
    struct.pack_into("<Q", whole, place + 8, size)
    file.write_bytes(whole)
    assert "is empty, or larger than the heap" in refused(read_weights, file)


def keras_archive(path, change):
    """Write a CancerNet as a Keras archive whose configuration was changed as text."""
    saved = path.with_name("whole.keras")
    CancerNet.build(width=8, height=8, depth=3, classes=2).save(saved)
    buffer = io.BytesIO()
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(buffer, "w") as changed:
        for entry in archive.infolist():
            content = archive.read(entry)
            changed.writestr(entry.filename, change(content) if entry.filename == "config.json" else content)
    path.write_bytes(buffer.getvalue())
    return path


def with_rescaling(scale):
    def change(content):
        config = json.loads(content)
        rescaling = {"class_name": "Rescaling", "module": "keras.layers", "config": {"scale": 0, "offset": 0}}
        config["class_name"] = "Sequential"
        config["config"]["layers"].append(rescaling)
        return json.dumps(config).encode().replace(b'"scale": 0', b'"scale": ' + scale)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b'"channels_last"', b'["channels_last"]'),
        lambda content: b"[" * 100_000,
        lambda content: b"\xff",
        lambda content: content.replace(b'"units": 2', b'"units": 1e999'),
        with_rescaling(b"9" * 400),
    ],
)
def test_a_keras_configuration_of_other_types(change, tmp_path):
    assert "model.keras" in refused(read_weights, keras_archive(tmp_path / "model.keras", change))
