import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.calibration import calibration_summary
from cancernet.evaluation.metrics import confusion
from cancernet.evaluation.report.pooling import subject_of
from cancernet.evaluation.run_folder import read_run
from tests.evaluation.pages import Page
from tests.evaluation.run_folders import draw_run


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    place = tmp_path_factory.mktemp("folds")
    return [
        draw_run(place / f"fold{n}", names=[f"{n}{i}" for i in range(4)], seed=n, side=5, split="case", folds=3, fold=n)
        for n in range(3)
    ]


def test_folds_pool_into_one_page(folds, tmp_path):
    runs = [read_run(folder) for folder in folds]
    subject = subject_of(runs[::-1])
    pooled = subject.metrics
    label, probability = subject.predictions["label"], subject.predictions["probability"]
    assert pooled.patches == sum(run.metrics.patches for run in runs) == len(subject.predictions)
    for at in (lambda metrics: metrics, lambda metrics: metrics.at_validation_threshold):
        parts = [at(run.metrics).confusion_matrix for run in runs]
        assert np.array_equal(at(pooled).confusion_matrix, np.sum(parts, axis=0))
    assert pooled.auroc == pytest.approx(roc_auc_score(label, probability), abs=1e-12)
    for number, point in enumerate(pooled.operating_points):
        counts = [
            confusion(run.tested.label, run.tested.probability, run.metrics.operating_points[number].threshold)
            for run in runs
        ]
        tn, fp, fn, tp = np.sum(counts, axis=0)
        assert point.test.sensitivity == pytest.approx(tp / (tp + fn))
        assert point.test.specificity == pytest.approx(tn / (tn + fp))
    scaled = [run.tested.logit / run.metrics.calibration.temperature for run in runs]
    expected = calibration_summary(label, np.concatenate(scaled).astype(np.float64))
    assert pooled.calibration.after.log_loss == pytest.approx(expected.log_loss, rel=1e-6)
    bounds = pooled.intervals.at_validation_threshold.balanced_accuracy
    assert bounds.low <= pooled.at_validation_threshold.balanced_accuracy <= bounds.high
    assert bounds.estimate == pytest.approx(pooled.at_validation_threshold.balanced_accuracy)
    assert main(["report", *map(str, folds), "--output", str(tmp_path / "pooled.html")]) == 0
    parsed = Page((tmp_path / "pooled.html").read_text(encoding="utf-8"))
    assert "Fold by fold" in parsed.text
    assert json.loads(parsed.scripts[0])["start"] == "own"


def test_folds_keep_the_pictures_of_their_own_patches(folds):
    runs = [read_run(folder) for folder in folds]
    subject = subject_of(runs)
    assert subject.pictures is not None
    at = 0
    for run in runs:
        tested = np.flatnonzero(run.predictions.part == "test")
        assert run.pictures is not None
        np.testing.assert_array_equal(subject.pictures.thumbnail[at : at + len(tested)], run.pictures.thumbnail[tested])
        at += len(tested)
    first = runs[0].predictions["path"].iloc[runs[0].pictures.mistake_row[0]]
    assert subject.predictions["path"].iloc[subject.pictures.mistake_row[0]] == first
    np.testing.assert_array_equal(subject.pictures.mistake_map[0], runs[0].pictures.mistake_map[0])
    assert len(subject.pictures.mistake_map) == len(subject.pictures.mistake_image)
    without = replace(runs[0], pictures=replace(runs[0].pictures, mistake_map=None))
    assert subject_of([without, *runs[1:]]).pictures.mistake_map is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "patch"}, "split is 'patch'"),
        ({"synthetic": True}, "synthetic is True"),
        ({"fingerprint": "e" * 128}, "fingerprint is 'eeee"),
        ({"folds": 5}, "folds is 5"),
    ],
)
def test_runs_of_other_kinds_do_not_pool(folds, tmp_path, change, message):
    other = draw_run(
        tmp_path / "o", names=["x"], side=5, draws=20, **({"split": "case", "folds": 3, "fold": 1} | change)
    )
    with pytest.raises(InputError, match=message):
        subject_of([read_run(folds[0]), read_run(other)])


def test_a_patch_in_two_folds_is_refused(folds, tmp_path):
    again = read_run(folds[1])
    with pytest.raises(InputError, match=r"holds the patch .* give each fold once"):
        subject_of([read_run(folds[0]), again, again])
    single = draw_run(tmp_path / "single", names=["x"], side=5, draws=20)
    with pytest.raises(InputError, match="not a fold of a cross-validation"):
        subject_of([read_run(single), read_run(single)])
