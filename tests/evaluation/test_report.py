import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import jsonschema
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.calibration import calibration_summary
from cancernet.evaluation.grid import lay_out
from cancernet.evaluation.metrics import confusion
from cancernet.evaluation.report import maps, write_report
from cancernet.evaluation.report.formatting import figure, listing, percent
from cancernet.evaluation.report.model_card import write_model_card
from cancernet.evaluation.report.narrative import describe
from cancernet.evaluation.report.page import render, stops
from cancernet.evaluation.report.pooling import subject_of
from cancernet.evaluation.results import TestMetrics
from cancernet.evaluation.run_folder import read_run
from tests.evaluation.run_folders import draw_run, edit_metrics

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "</script><!-- x",
    "8004",
    "<img src=x onerror=alert(2)>",
)


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text of all and of each script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.scripts, self._open = [], "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open != "style":
            self.text += data

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose cases have names that are markup."""
    return draw_run(tmp_path_factory.mktemp("hostile") / "run", names=HOSTILE, side=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_run(tmp_path_factory.mktemp("synthetic") / "run", cases=12, side=7, outside=2)


@pytest.fixture(scope="module")
def page(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the synthetic run that a test may break."""
    target = tmp_path / "run"
    target.mkdir()
    for name in ("metrics.json", "predictions.parquet", "predictions.csv", "pictures.npz", "config.yaml"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    place = tmp_path_factory.mktemp("folds")
    return [
        draw_run(place / f"fold{n}", names=[f"{n}{i}" for i in range(4)], seed=n, side=5, split="case", folds=3, fold=n)
        for n in range(3)
    ]


def test_synthetic_runs_keep_the_schema(folder):
    schema = TestMetrics.model_json_schema()
    jsonschema.validate(json.loads((folder / "metrics.json").read_text(encoding="utf-8")), schema)


def test_page_needs_nothing_from_elsewhere(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text) < 5_000_000
    assert "default-src 'none'" in text
    loaded = page.attributes("src") + [href for href in page.attributes("href") if not href.startswith("#")]
    assert len(loaded) > 12
    assert all(source.startswith("data:") for source in loaded)
    assert not re.search(r"https?://|@import|url\(", text)


def test_ids_are_unique(page):
    names = page.attributes("id")
    assert len(names) == len(set(names))
    used = {name.removeprefix("#") for name in page.attributes("xlink:href")}
    assert used <= set(names)


def test_page_has_all_its_sections(page):
    for name in ("figures", "words", "threshold", "cases", "metrics", "calibration", "maps", "outside", "mistakes"):
        assert name in page.attributes("id")
    assert {"data", "run", "operating-points", "false-positive", "false-negative"} <= set(page.attributes("id"))
    assert "Research, not for diagnosis" in page.text
    assert "not a picture" in page.text  # why files were rejected
    assert "split: official" in page.text  # the configuration
    assert "colour histogram" in page.text
    assert "ffffffff" in page.text  # the source's fingerprint


def test_every_string_of_the_data_is_escaped(hostile):
    edit_metrics(hostile, data="<b>data</b>", version="</style>", checkpoint='"><i>', fingerprint="<u>")
    path = write_report(hostile)
    parsed = Page(path.read_text(encoding="utf-8"))
    assert len(parsed.scripts) == 2
    assert not {"b", "u"} & {tag for tag, attributes in parsed.elements if not attributes}
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    for name in HOSTILE:
        assert f"Case {name}" in parsed.text
    assert json.loads(parsed.scripts[0])["cases"]
    card = (hostile / "model_card.md").read_text(encoding="utf-8")
    assert not re.search(r"<(script|img|b|u|i|/style)\b", card)


def test_embedded_scores_are_the_predictions(folder, page):
    data = json.loads(page.scripts[0])
    tested = read_run(folder).tested
    scores = np.frombuffer(base64.b64decode(data["scores"]), "<f4")
    assert len(scores) == len(tested)  # and so nothing outside the split
    start = 0
    for row, (benign, idc, own) in zip(read_run(folder).metrics.per_case, data["cases"], strict=True):
        of_case = tested[tested["case"] == row.case]
        for label, count in ((0, benign), (1, idc)):
            expected = np.sort(of_case["probability"][of_case["label"] == label].to_numpy())
            np.testing.assert_array_equal(scores[start : start + count], expected)
            start += count
        assert own == read_run(folder).metrics.at_validation_threshold.threshold


def test_slider_stops_at_the_stored_thresholds(folder, page):
    metrics = read_run(folder).metrics
    values = json.loads(page.scripts[0])["stops"]
    assert values == sorted(set(values))
    assert {0.0, 0.5, 1.0, metrics.at_validation_threshold.threshold} <= set(values)
    assert {point.threshold for point in metrics.operating_points} <= set(values)
    # Scores that all lie near 0 get stops of their own.
    assert np.count_nonzero(np.array(stops(np.geomspace(1e-9, 1e-6, 500, dtype=np.float32), [0.5])) < 1e-5) > 150


def read_picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_maps_place_each_patch_and_leave_absent_tissue_blank():
    x, y = np.array([101, 201, 151, -1]), np.array([51, 51, 151, -1])
    grid = lay_out(x, y)
    assert grid is not None
    assert (grid.columns, grid.rows) == (3, 3)
    label = np.array([0, 1, 0, 1])
    drawn = np.array(read_picture(maps.label_map(grid, label)).convert("RGBA"))
    assert drawn[..., 3].astype(bool).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    ends = [tuple(bytes.fromhex(maps.VIRIDIS[end])) for end in (0, -1)]
    assert [tuple(drawn[0, 0, :3]), tuple(drawn[0, 2, :3]), tuple(drawn[2, 1, :3])] == [ends[0], ends[1], ends[0]]
    sure = np.array(read_picture(maps.probability_map(grid, label.astype(float))).convert("RGBA"))
    np.testing.assert_array_equal(sure, drawn)  # a certain and right model draws the label map
    calls = np.array(read_picture(maps.call_map(grid, label, np.array([True, True, False, True]))).convert("RGB"))
    names = [list(maps.CALLS.values()).index(bytes(calls[cell]).hex()) for cell in ((0, 0), (0, 2), (2, 1))]
    assert names == [1, 3, 0]


def test_slide_is_stitched_from_thumbnails():
    grid = lay_out(np.array([1, 101]), np.array([1, 51]))
    assert grid is not None
    colours = np.array([[200, 60, 120], [40, 90, 160]], dtype=np.uint8)
    thumbnail = np.broadcast_to(colours[:, None, None, :], (2, 8, 8, 3)).copy()
    for reduction, size in ((1, 8), (2, 4)):
        slide = np.array(read_picture(maps.stitch_slide(grid, thumbnail, reduction)).convert("RGBA"))
        assert slide.shape == (2 * size, 3 * size, 4)
        assert not slide[:size, size:, 3].any()
        middle = size // 2
        np.testing.assert_allclose(slide[middle, middle, :3], colours[0], atol=12)
        np.testing.assert_allclose(slide[size + middle, 2 * size + middle, :3], colours[1], atol=12)


def test_positions_that_cannot_be_are_not_drawn():
    assert lay_out(np.array([-1, -1]), np.array([-1, 5])) is None
    assert lay_out(np.array([1, 10**9]), np.array([1, 1])) is None


def test_cases_without_positions_are_said_to_have_none(page):
    assert page.text.count("No map: the positions of its patches are unknown.") == 1


def test_cases_outside_the_split_count_nowhere(folder, page):
    assert {"outside-0", "outside-1"} <= set(page.attributes("id"))
    assert "They count in no figure on this page" in page.text
    rows = [attributes for tag, attributes in page.elements if tag == "tr" and "data-case" in attributes]
    assert len(rows) == read_run(folder).metrics.cases == 12


def test_banners_stand_where_they_belong(copy, page):
    assert not {"banner-synthetic", "banner-leak"} & set(page.attributes("id"))
    edit_metrics(copy, synthetic=True, leaks=True)
    parsed = Page(write_report(copy).read_text(encoding="utf-8"))
    assert {"banner-synthetic", "banner-leak"} <= set(parsed.attributes("id"))
    card = (copy / "model_card.md").read_text(encoding="utf-8")
    assert "Synthetic data" in card
    assert "The split leaks" in card


def test_csv_and_parquet_make_the_same_page(copy):
    whole = write_report(copy).read_text(encoding="utf-8")
    (copy / "predictions.parquet").unlink()
    assert write_report(copy).read_text(encoding="utf-8") == whole


def test_case_names_that_look_like_numbers_or_nothing_stay(tmp_path):
    folder = draw_run(tmp_path / "run", names=["007", "NA", "7"], side=5, outside=0)
    (folder / "predictions.parquet").unlink()
    assert sorted(read_run(folder).tested["case"].unique()) == ["007", "7", "NA"]
    assert "Case 007" in write_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("change", [{"calibrated": False}, {"cases": 1}, {"cases": 2, "side": 2}, {"outside": 0}])
def test_small_and_uncalibrated_runs_get_a_page(tmp_path, change):
    folder = draw_run(tmp_path / "run", **({"cases": 3, "side": 5, "draws": 20} | change))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "In words" in text
    assert (folder / "model_card.md").is_file()


def test_a_run_of_one_class_gets_a_page(tmp_path):
    folder = draw_run(tmp_path / "run", names=["a", "b"], side=5, outside=0)
    edit_metrics(folder, auroc=None, sensitivity=None, mcc=None, worst_tenth=[])
    assert "hold one class only" in write_report(folder).read_text(encoding="utf-8")


def test_a_run_without_pictures_gets_a_page(copy):
    (copy / "pictures.npz").unlink()
    (copy / "config.yaml").unlink()
    text = write_report(copy).read_text(encoding="utf-8")
    assert "The run folder holds no pictures." in text
    assert "no config.yaml" in text


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
    done = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, timeout=120)
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


def altered(record, **changes):
    """The same record with other values, which need not fit together."""
    return record.model_copy(update=changes)


def said(metrics, **changes):
    return " ".join(statement.text for statement in describe(altered(metrics, **changes)))


def test_words_follow_the_figures(folder):
    metrics = read_run(folder).metrics
    plain = said(metrics)
    assert metrics.worst_tenth[0] in plain
    chosen = metrics.at_validation_threshold
    assert f"{chosen.confusion_matrix[1][1]:,} of" in plain
    assert "Patches were split at random" in said(metrics, leaks=True)
    assert "synthetic" in said(metrics, synthetic=True)
    turned = altered(chosen, sensitivity=0.98, specificity=0.5)
    assert "fails on benign patches more often" in said(metrics, at_validation_threshold=turned)
    turned = altered(chosen, sensitivity=0.5, specificity=0.98)
    assert "fails on IDC patches more often" in said(metrics, at_validation_threshold=turned)
    turned = altered(chosen, sensitivity=0.9, specificity=0.91)
    assert "neither class pays" in said(metrics, at_validation_threshold=turned)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.3, "It beats a logistic"), (-0.3, -0.1, "beats it by"), (-0.1, 0.3, "not shown to beat")],
)
def test_words_on_the_baseline(folder, low, high, words):
    metrics = read_run(folder).metrics
    colour = metrics.baselines.colour_histogram
    auroc = altered(colour.difference.auroc, estimate=(low + high) / 2, low=low, high=high)
    colour = altered(colour, difference=altered(colour.difference, auroc=auroc))
    assert words in said(metrics, baselines=altered(metrics.baselines, colour_histogram=colour))


def test_words_on_calibration(folder):
    metrics = read_run(folder).metrics
    for slope, shift, words in ((0.5, 0.8, "too extreme"), (1.6, -0.8, "too timid"), (1.02, 0.0, "about right")):
        after = altered(metrics.calibration.after, slope=slope, intercept_in_the_large=shift, log_loss=9.0)
        text = said(metrics, calibration=altered(metrics.calibration, after=after))
        assert words in text
        assert "raises the log loss" in text
        assert ("too low: IDC is commoner" in text) == (shift > 0)
        assert ("too high: IDC is rarer" in text) == (shift < 0)


def test_words_on_scores_that_are_all_alike(folder):
    metrics = read_run(folder).metrics
    assert "hardly differ" not in said(metrics)
    bins = [altered(metrics.calibration.before.reliability[0], mean_predicted=value) for value in (0.45, 0.47)]
    before = altered(metrics.calibration.before, reliability=bins)
    assert "hardly differ" in said(metrics, calibration=altered(metrics.calibration, before=before))


@pytest.mark.parametrize(("width", "words"), [(0.3, "too few cases"), (0.05, "paired comparison"), (0.01, "trusted")])
def test_words_on_the_interval(folder, width, words):
    metrics = read_run(folder).metrics
    auroc = altered(metrics.intervals.at_threshold.auroc, low=0.6, high=0.6 + width)
    bounds = altered(metrics.intervals.at_threshold, auroc=auroc)
    assert words in said(metrics, intervals=altered(metrics.intervals, at_threshold=bounds))


def test_model_card_says_what_it_must(folder):
    card = write_model_card(folder).read_text(encoding="utf-8")
    metrics = read_run(folder).metrics
    for words in (
        "Research, not for diagnosis",
        "One cohort",
        "No external validation",
        "## Calibration",
        "torch 2.11.0",
    ):
        assert words in card
    bounds = metrics.intervals.at_threshold.auroc
    assert f"| AUROC | {figure(metrics.auroc)} ({figure(bounds.low)} to {figure(bounds.high)})" in card
    assert "&#" not in card


def test_numbers_are_written_as_a_browser_writes_them():
    assert figure(0.0625) == "0.063"  # toFixed rounds an exact tie up
    assert figure(-0.00001) == "0.000"
    assert figure(-0.25, 2) == "−0.25"
    assert figure(None) == figure(float("nan")) == "–"
    assert percent(0.999) == "99.9\u00a0%"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing([str(n) for n in range(7)]) == "0, 1, 2, 3, 4 and 2 more"


def test_render_does_not_touch_the_folder(folder, tmp_path):
    before = sorted(path.name for path in folder.iterdir())
    render(subject_of([read_run(folder)]))
    assert sorted(path.name for path in folder.iterdir()) == before
