"""The page's section on the slide's context."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.grid import lay_out
from cancernet.evaluation.report import maps, write_report
from cancernet.evaluation.report.formatting import figure, signed
from tests.evaluation.pages import Page
from tests.evaluation.run_folders import draw_predictions, draw_run, edit_metrics, replace_predictions

TITLES = ("expert's labels", "patch-wise probability", "probability with context")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = draw_run(tmp_path_factory.mktemp("synthetic") / "run", cases=3, side=14, outside=1, draws=20)
    (folder / "pictures.npz").unlink()
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture
def fitted(folder):
    assert main(["context", str(folder), "--fit_on=9900"]) == 0
    return folder


def read(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def pictures(page):
    return {
        attributes["alt"]: attributes["src"]
        for tag, attributes in page.elements
        if tag == "img" and "alt" in attributes
    }


def test_pages_without_context_have_no_section(folder):
    page = read(folder)
    assert "context" not in page.attributes("id")
    assert "With the slide's context" not in page.text


def test_section_stands_apart_and_changes_nothing_else(folder):
    before = write_report(folder).read_text(encoding="utf-8")
    assert main(["context", str(folder), "--fit_on=9900"]) == 0
    after = write_report(folder).read_text(encoding="utf-8")
    link = '<a href="#context">Context</a> '
    assert after.count(link) == 1
    after = after.replace(link, "")
    start = after.index('<section id="context"')
    end = after.index("</section>", start) + len("</section>")
    assert (after[:start] + after[end:]).split() == before.split()
    assert len(after) - len(before) < 20_000


def test_section_says_what_the_files_say(fitted):
    page = read(fitted)
    result = json.loads((fitted / "context-fitted-9900.json").read_text(encoding="utf-8"))
    for words in (*result["words"], "context-fitted-9900"):
        assert words in page.text
    for name, difference in result["difference"].items():
        assert figure(result["context"][name]["estimate"]) in page.text
        assert signed(difference["estimate"]) in page.text
    table = pd.read_csv(fitted / "context-fitted-9900.csv", dtype={"case": str})
    shown = pictures(page)
    for case in ("8000", "8001"):
        group = table[table["case"] == case]
        grid = lay_out(group["x"].to_numpy(), group["y"].to_numpy())
        for title, column in zip(TITLES[1:], ("probability", "context_probability"), strict=True):
            source = shown[f"{title} of case {case}, {grid.columns} by {grid.rows} cells"]
            assert source == maps.probability_map(grid, group[column].to_numpy())
    assert not any("8002" in name and "context" in name for name in shown)  # its positions are unknown


def origin_of(folder):
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        "threshold": metrics["at_validation_threshold"]["threshold"],
        "temperature": metrics["calibration"]["temperature"],
    }


def test_context_of_the_runs_own_predictions_is_shown_and_no_other(folder):
    own = origin_of(folder)
    parts = {"validation": ["v1", "v2"], "test": ["8000"]}
    for name, origin in (
        ("own", own),
        ("other", own | {"fingerprint": "e" * 128}),
        ("last", own | {"temperature": 9.0}),
    ):
        place = draw_predictions(folder / f"predict-{name}", parts, **origin)
        assert main(["context", str(place)]) == 0
    page = read(folder)
    assert "predict-own/context" in page.text
    assert "predict-other" not in page.text
    assert "predict-last" not in page.text


def test_synthetic_slides_are_called_so(folder, capsys):
    edit_metrics(folder, synthetic=True)
    assert main(["context", str(folder), "--fit_on=9900"]) == 0
    assert "Synthetic data" in capsys.readouterr().out
    text = write_report(folder).read_text(encoding="utf-8")
    start = text.index('<section id="context"')
    assert "Synthetic data" in text[start : text.index("</section>", start)]


def test_sparse_cases_get_no_map(folder):
    parts = {"validation": ["v1", "v2"], "test": ["8000"]}
    place = draw_predictions(folder / "predict-own", parts, **origin_of(folder))
    table = pd.read_parquet(place / "predictions.parquet")
    kept = (table["part"] == "validation") | (np.random.default_rng(0).uniform(size=len(table)) < 0.3)
    replace_predictions(place, table[kept].reset_index(drop=True))
    assert main(["context", str(place)]) == 0
    page = read(folder)
    assert "With the slide's context" in page.text
    assert not any("with context" in name for name in pictures(page))


@pytest.mark.parametrize("damage", ["{", "[]", '{"origin": 1}'])
def test_broken_files_are_named(fitted, damage):
    path = fitted / "context-fitted-9900.json"
    path.write_text(damage)
    with pytest.raises(InputError, match=r"context-fitted-9900\.json.*run `cancernet context` again, or remove it"):
        write_report(fitted)


def test_a_missing_table_is_named(fitted):
    (fitted / "context-fitted-9900.csv").unlink()
    with pytest.raises(InputError, match=r"context-fitted-9900\.csv: cannot be read"):
        write_report(fitted)
