"""What is wrong with a file or a folder is found before torch is imported."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.preflight import preflight
from tests.output import only_line

ROOT = Path(__file__).parent.parent
MISSING_CONFIG = {"ckpt.yaml": "ckpt_path: nosuch.ckpt\n", "root.yaml": "data:\n  root: nosuch.zip\n  cache: cache\n"}
FILES = {
    **MISSING_CONFIG,
    "split.yaml": "data: {split: nosuch.csv}\n",
    "list.yaml": "- 1\n",
    "broken.yaml": "data: [",
    "group.yaml": "root: nosuch.zip\n",
    "empty.csv": "",
    "columns.csv": "patient,fold\n1,2\n",
    "text.ckpt": "no checkpoint",
}
REFUSED = [
    ("fit --data.root nosuch.zip", "nosuch.zip does not exist"),
    ("fit --data.root=nosuch.csv", "nosuch.csv does not exist: check the path"),
    ("fit --data.root tiles/*.png", "tiles/*.png matches nothing"),
    ("fit --config nosuch.yaml", "nosuch.yaml: cannot be read"),
    ("fit -c broken.yaml", "broken.yaml: cannot be read as YAML"),
    ("fit --config list.yaml", "list.yaml: holds no options"),
    ("fit --config=root.yaml", "nosuch.zip does not exist"),
    ("fit --config=split.yaml", "data.split: no file nosuch.csv"),
    ("fit --data group.yaml", "nosuch.zip does not exist"),
    ("fit --data.split nosuch", "unknown split 'nosuch'"),
    ("fit --data.split empty.csv", "empty.csv: is empty"),
    ("fit --data.split columns.csv", "columns part and case (or path) are needed, found patient, fold"),
    ("fit --ckpt_path nosuch.ckpt", "no file"),
    ("fit --ckpt_path pickle.ckpt", "pickle.ckpt: not a checkpoint that can be read safely"),
    ("fit --model.weights nosuch.keras", "model.weights: no file nosuch.keras"),
    ("test", "--ckpt_path is needed"),
    ("validate --config ckpt.yaml", "nosuch.ckpt"),
    ("test --ckpt_path text.ckpt", "text.ckpt: not a checkpoint"),
    ("predict --data.seed -1 --ckpt_path=~/nosuch.ckpt", "/nosuch.ckpt"),
    ("calibrate nosuch.ckpt --root here", "no file"),
    ("export --format onnx text.ckpt", "text.ckpt: not a checkpoint"),
    ("convert nosuch.h5 new.ckpt", "nosuch.h5: no file"),
    ("report nosuch", "nosuch: no such folder"),
    ("compare . nosuch", "nosuch: no such folder"),
    ("context nosuch --neighbourhood 5", "nosuch: no such folder"),
    ("prepare nosuch --output=store", "nosuch does not exist"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with the files of the cases."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "words"), REFUSED)
def test_a_wrong_file_or_folder_is_named(line, words, here, capsys):
    assert main(line.split()) == 2
    said = only_line(capsys)
    assert words in said
    assert "Kaggle" not in said or "prepare" in line


def test_torch_is_not_imported_for_any_of_them(here):
    code = (
        "import json, sys; from cancernet.cli import main\n"
        "status = {main(line.split()) for line in json.loads(sys.argv[1])}\n"
        "sys.exit(f'status {status}, {[m for m in ('torch', 'lightning', 'keras') if m in sys.modules]}')".replace(
            "'torch', 'lightning', 'keras'", '"torch", "lightning", "keras"'
        )
    )
    lines = json.dumps([line for line, _ in REFUSED])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, lines], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == "status {2}, []"


def test_environment_variables_count_where_they_are_asked_for(here, monkeypatch):
    monkeypatch.setenv("PL_TEST__CKPT_PATH", "nosuch.ckpt")
    with pytest.raises(InputError, match="--ckpt_path is needed"):
        preflight("test", [])
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    with pytest.raises(InputError, match=r"no file .*nosuch\.ckpt"):
        preflight("test", [])


@pytest.mark.parametrize(
    "line",
    [
        "fit --help --data.root nosuch.zip",
        "test --print_config",
        "fit --data.root nosuch.zip --data.root synthetic",  # the last one counts
        "fit --config root.yaml --data.root synthetic",
        "fit --data.root nosuch.zip --data {root: synthetic}",
        "fit --data.root ['a b.png', c.png]",
        "test --config {ckpt_path:\u00a0best.ckpt}",
        "test --config=ckpt_path:\n\u00a0best.ckpt",
        "fit --ckpt_path last",
        "test --ckpt_path s3://bucket/best.ckpt",
        "test --config s3://bucket/config.yaml",
        "test --data.cache  --ckpt_path best",
        "fit --data.split official --model.weights null --data.cache",
        "calibrate",
        "synthesize out.zip",
        "report .",
        "prepare synthetic",
    ],
)
def test_what_cannot_be_told_from_the_words_is_left_to_the_parser(line, here):
    command, *words = line.split(" ")
    preflight(command, words)
