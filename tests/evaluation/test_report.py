import base64
import json
import re
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from cancernet.evaluation.report import write_report
from cancernet.evaluation.report.page import render, stops
from cancernet.evaluation.report.pooling import subject_of
from cancernet.evaluation.results import TestMetrics
from cancernet.evaluation.run_folder import read_run
from tests.evaluation.pages import Page
from tests.evaluation.run_folders import draw_run, edit_metrics

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "</script><!-- x",
    "8004",
    "<img src=x onerror=alert(2)>",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose cases have names that are markup."""
    return draw_run(tmp_path_factory.mktemp("hostile") / "run", names=HOSTILE, side=6)


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
    subject = subject_of([read_run(folder)])
    metrics = subject.metrics.model_copy(update={"auroc": None, "sensitivity": None, "mcc": None, "worst_tenth": []})
    assert "hold one class only" in render(replace(subject, metrics=metrics))


def test_a_run_without_pictures_gets_a_page(copy):
    (copy / "pictures.npz").unlink()
    (copy / "config.yaml").unlink()
    text = write_report(copy).read_text(encoding="utf-8")
    assert "The run folder holds no pictures." in text
    assert "no config.yaml" in text


def test_render_does_not_touch_the_folder(folder, tmp_path):
    before = sorted(path.name for path in folder.iterdir())
    render(subject_of([read_run(folder)]))
    assert sorted(path.name for path in folder.iterdir()) == before
