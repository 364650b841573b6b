"""Run folders that were changed, or hold results of a part: no page, no comparison and no context are made of them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from cancernet.cli import main
from cancernet.evaluation.report import write_report
from cancernet.evaluation.run_folder import read_run
from tests.evaluation.run_folders import draw_predictions, draw_run, edit_metrics
from tests.output import only_line


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return draw_run(tmp_path_factory.mktemp("original") / "run", cases=4, side=5, draws=20)


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A run that a test may change."""
    return shutil.copytree(original, tmp_path / "run")


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def as_version_0_1(folder: Path) -> None:
    """Take out what that version did not write."""
    edit(folder / "metrics.json", lambda content: content.pop("sha256"))


EDITS = {
    "auroc 0.988": lambda content: content.update(auroc=0.988),
    "intervals.at_threshold.auroc.estimate 0.9": lambda c: c["intervals"]["at_threshold"]["auroc"].update(estimate=0.9),
    "confusion_matrix at 0.5": lambda content: content.update(confusion_matrix=[[50, 0], [0, 50]]),
    "confusion_matrix at 0.": lambda c: c["at_validation_threshold"].update(confusion_matrix=[[50, 0], [0, 50]]),
    "patches 9999": lambda content: content.update(patches=9999),
    "cases 9": lambda content: content.update(cases=9),
    "do not share the case": lambda content: content["per_case"][0].update(case="another"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("words", EDITS)
def test_metrics_that_contradict_their_predictions_are_refused(words, old, folder, capsys):
    if old:
        as_version_0_1(folder)
    edit(folder / "metrics.json", EDITS[words])
    assert main(["report", str(folder)]) == 2
    line = only_line(capsys)
    assert all(part in line for part in (words, str(folder / "metrics.json"), "run `cancernet test`"))


@pytest.mark.parametrize("command", ["compare", "context"])
def test_neither_are_they_compared_or_corrected(command, folder, capsys):
    edit_metrics(folder, auroc=0.988)
    assert main([command, str(folder), *([str(folder)] if command == "compare" else [])]) == 2
    assert "says auroc 0.988" in only_line(capsys)


@pytest.mark.parametrize("name", ["sensitivity", "log_loss", "mcc"])
def test_other_figures_are_compared_where_the_version_is_known(name, folder, capsys):
    edit_metrics(folder, **{name: 0.123})
    assert main(["report", str(folder)]) == 2
    assert f"says {name} 0.123" in only_line(capsys)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(leaks=True),
        lambda content: content["per_case"][0].update(auroc=0.99),
        lambda content: content["environment"].update(commit="f" * 40),
    ],
)
def test_an_entry_that_follows_from_no_prediction_is_guarded_too(change, folder, capsys):
    edit(folder / "metrics.json", change)
    assert main(["report", str(folder)]) == 2
    assert "metrics.json: was changed after it was written" in only_line(capsys)


@pytest.mark.parametrize("name", ["predictions.csv", "confusion_matrix.png"])
def test_a_file_that_was_changed_is_named(name, folder, capsys):
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    assert main(["report", str(folder)]) == 2
    assert f"{name}: was changed after it was written" in only_line(capsys)


def test_predictions_that_were_changed_are_no_ground_for_a_context(tmp_path, capsys):
    folder = draw_predictions(tmp_path / "predict", {"validation": ["a", "b"], "test": ["c", "d"]})
    table = pd.read_parquet(folder / "predictions.parquet")
    table.assign(logit=-table["logit"]).to_parquet(folder / "predictions.parquet", index=False)
    assert main(["context", str(folder)]) == 2
    assert "predictions.parquet: was changed after it was written" in only_line(capsys)


def test_folders_of_version_0_1_get_a_page(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    as_version_0_1(folder)
    assert write_report(folder).read_text(encoding="utf-8") == text


def test_a_word_in_place_of_a_number_is_one_line(folder, capsys):
    edit_metrics(folder, auroc="abc")
    for command in (["report", str(folder)], ["compare", str(folder), str(folder)], ["context", str(folder)]):
        assert main(command) == 2
        assert "metrics.json: auroc is 'abc'" in only_line(capsys)


def test_a_part_of_a_test_is_marked_and_compared_with_nothing(folder, capsys):
    edit_metrics(folder, whole=False, extent={"evaluated": 64, "patches": 1000})
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Part of the test: 64 of 1,000 patches." in page
    assert 'id="banner-part"' in page
    assert "Part of the test: 64 of 1,000 patches." in (folder / "model_card.md").read_text(encoding="utf-8")
    for command in (["compare", str(folder), str(folder)], ["context", str(folder)]):
        assert main(command) == 2
        assert "its results are of 64 of 1,000 patches only" in only_line(capsys)
    assert read_run(folder).metrics.part_of == "64 of 1,000 patches"
