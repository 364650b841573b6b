import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.report import write_report
from tests.evaluation.run_folders import edit_metrics


def break_predictions(folder, **columns):
    table = pd.read_parquet(folder / "predictions.parquet").assign(**columns)
    table.to_parquet(folder / "predictions.parquet")


def break_pictures(folder):
    np.savez(
        folder / "pictures.npz", thumbnail=np.zeros((2, 8, 8, 3)), mistake_row=[0], mistake_image=np.zeros((1, 5, 5, 3))
    )


DAMAGE = {
    "no metrics.json": lambda folder: (folder / "metrics.json").unlink(),
    "cannot be read": lambda folder: (folder / "metrics.json").write_text("{"),
    "holds a list": lambda folder: (folder / "metrics.json").write_text("[]"),
    "another version wrote it": lambda folder: (folder / "metrics.json").write_text("{}"),
    "neither predictions.parquet": lambda f: [(f / f"predictions.{kind}").unlink() for kind in ("csv", "parquet")],
    "predictions cannot be read": lambda folder: (folder / "predictions.parquet").write_bytes(b"PAR1"),
    "no patch of the test part": lambda folder: break_predictions(folder, part="train"),
    "neither 0 nor 1": lambda folder: break_predictions(folder, label=7),
    "outside \\[0, 1\\]": lambda folder: break_predictions(folder, probability=1.5),
    "what is no number": lambda folder: break_predictions(folder, x="left"),
    "the predictions say": lambda folder: break_predictions(folder, probability=np.float32(0.9)),
    "do not share the case": lambda folder: edit_metrics(folder, per_case=[]),
    "does not belong to the predictions": break_pictures,
    "csv: was changed after it was written": lambda folder: (folder / "predictions.csv").write_text("path\n"),
    "pictures.npz: cannot be read": lambda folder: (folder / "pictures.npz").write_bytes(b"PK"),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_bad_folders_are_refused_in_one_line(copy, message):
    DAMAGE[message](copy)
    with pytest.raises(InputError, match=message) as caught:
        write_report(copy)
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


def test_command_rebuilds_the_page_without_torch(copy):
    code = (
        "import sys; from cancernet.cli import main; status = main(['report', sys.argv[1]]);"
        "assert not {'torch', 'keras', 'lightning', 'sklearn'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(copy / "report.html")
    assert (copy / "model_card.md").is_file()


def test_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["report", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert "run_dir" in capsys.readouterr().err.lower()


def test_command_says_where_it_cannot_write(copy, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["report", str(copy), "--output", str(tmp_path / "file" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err
