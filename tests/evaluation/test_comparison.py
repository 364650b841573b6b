import json

import numpy as np
import pytest

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.bootstrap import paired_difference
from cancernet.evaluation.comparison import compare_runs
from cancernet.evaluation.metrics import METRICS
from cancernet.evaluation.report.comparison import render
from cancernet.evaluation.run_folder import read_run
from tests.evaluation.run_folders import draw_run, edit_metrics


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(place):
    return draw_run(place / "first", cases=6, side=6, draws=50)


@pytest.fixture(scope="module")
def second(place):
    return draw_run(place / "second", cases=6, side=6, draws=50, noise=1.0)


@pytest.fixture(scope="module")
def uncalibrated(place):
    return draw_run(place / "uncalibrated", cases=6, side=6, draws=50, noise=0.5, calibrated=False)


def test_differences_are_those_of_the_paired_bootstrap(first, second):
    a, b = read_run(first), read_run(second)
    result = compare_runs([a, b])
    joined = a.tested.merge(b.tested, on="path", suffixes=("_a", "_b"))
    thresholds = [run.metrics.at_validation_threshold.threshold for run in (b, a)]
    for key, at in (("threshold", (0.5, 0.5)), ("validation_threshold", thresholds)):
        expected = paired_difference(
            joined["label_a"],
            joined["probability_b"],
            joined["probability_a"],
            joined["case_a"],
            *at,
            draws=50,
            seed=0,
        )
        shown = dict(getattr(result.runs[1], f"difference_at_{key}"))
        assert list(shown) == list(METRICS)
        for name in METRICS:
            for part in ("estimate", "low", "high"):
                assert getattr(shown[name], part) == pytest.approx(getattr(expected[name], part), abs=1e-6)
            estimates = [getattr(getattr(run, f"at_{key}"), name).estimate for run in result.runs]
            assert shown[name].estimate == pytest.approx(estimates[1] - estimates[0], abs=1e-9)


def test_a_run_does_not_differ_from_itself(first):
    result = compare_runs([read_run(first), read_run(first)])
    for _, value in result.runs[1].difference_at_validation_threshold:
        assert value.estimate == value.low == value.high == 0
    assert len({run.name for run in result.runs}) == 2


def test_order_of_predictions_does_not_matter(first, second, tmp_path):
    import pandas as pd

    run = read_run(second)
    for file in second.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pictures.npz").unlink()
    shuffled = run.predictions.sample(frac=1, random_state=np.random.RandomState(0))
    pd.DataFrame(shuffled).to_parquet(tmp_path / "predictions.parquet", index=False)
    edit_metrics(tmp_path, sha256=None)  # as version 0.1.0 wrote it: without checksums
    pair = [compare_runs([read_run(first), read_run(folder)]).runs[1] for folder in (second, tmp_path)]
    assert pair[0].difference_at_threshold == pair[1].difference_at_threshold


def test_command_writes_table_json_and_page(first, second, uncalibrated, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    output = tmp_path / "side by side"
    runs = [str(first), str(second), str(uncalibrated)]
    assert main(["compare", *runs, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "AUROC" in printed
    assert "minus the first" in printed
    assert "best.ckpt" in printed
    result = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    assert [run["folder"] for run in result["runs"]] == runs
    assert result["runs"][2]["difference_at_validation_threshold"] is None
    assert result["runs"][2]["threshold"] is None
    assert result["warnings"] == []
    page = (output / "comparison.html").read_text(encoding="utf-8")
    assert "Research, not for diagnosis" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_leaks_and_synthetic_data_are_warned_of(first, second, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for file in second.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    edit_metrics(other, leaks=True, split="patch", synthetic=True)
    result = compare_runs([read_run(first), read_run(other)])
    assert [run.leaks for run in result.runs] == [False, True]
    assert [run.split for run in result.runs] == ["official", "patch"]
    said = " ".join(result.warnings)
    for words in ("Synthetic data", "Split by patch", "different splits"):
        assert words in said
    assert "Split by patch" in render(result)
    assert main(["compare", str(first), str(other), "--output", str(tmp_path / "out")]) == 0
    assert "Split by patch" in capsys.readouterr().out


def test_a_seed_is_no_other_split_where_the_split_knows_none(first, second, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in second.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    edit_metrics(other, seed=7)
    assert compare_runs([read_run(first), read_run(other)]).warnings == []


def test_other_patches_are_refused_and_named(first, place):
    fewer = draw_run(place / "fewer", cases=5, side=6, draws=20)
    with pytest.raises(InputError) as caught:
        compare_runs([read_run(first), read_run(fewer)])
    message = str(caught.value)
    assert "none only in the former" in message
    assert "8005/0/8005_0_class0.png" in message
    assert "patches) only in the latter" in message
    assert "\n" not in message


def test_other_labels_are_refused_and_named(first, place):
    other = draw_run(place / "other-labels", cases=6, side=6, draws=20)
    run = read_run(other)
    run.predictions.loc[3, "label"] = 1 - run.predictions.loc[3, "label"]
    with pytest.raises(InputError, match=r"1 of .* have another label .* first 8000/"):
        compare_runs([read_run(first), run])


def test_one_run_is_no_comparison(first, capsys):
    assert main(["compare", str(first)]) == 2
    assert "give two or more" in capsys.readouterr().err


def test_names_are_escaped(first, second):
    result = compare_runs([read_run(first), read_run(second)])
    hostile = result.runs[0].model_copy(update={"name": "<script>alert(1)</script>"})
    page = render(result.model_copy(update={"runs": [hostile, result.runs[1]]}))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
