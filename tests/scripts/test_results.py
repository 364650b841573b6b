# mypy: allow-untyped-defs
import numpy as np
import pandas as pd
import pytest
import yaml

from cancernet.evaluation.run_folder import read_run
from scripts.studies import engines
from scripts.studies.results import COLOURS, MODELS, main, read_models
from scripts.studies.trials import newest_test

QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", *QUICK]


@pytest.fixture(scope="module")
def arguments(archive, cache, tmp_path_factory):
    """Two models under one split of the archive, which is the same for every seed."""
    folder = tmp_path_factory.mktemp("table")
    names = [str(7000 + number) for number in range(12)]
    parts = pd.DataFrame({"case": names, "part": ["train"] * 6 + ["validation"] * 2 + ["test"] * 4})
    parts.to_csv(folder / "parts.csv", index=False)
    models = {"original": {"title": "first", "configs": []}, "compact": {"title": "second", "configs": []}}
    models["original"]["configs"] = ["configs/original.yaml"]
    models["compact"]["configs"] = ["configs/cancernet.yaml", "configs/compact.yaml"]
    (folder / "models.yaml").write_text(yaml.safe_dump(models, sort_keys=False))
    given = [str(folder / "runs"), f"--root={archive}", f"--cache={cache}", "--splits", str(folder / "parts.csv")]
    return [*given, "--seeds", "0", "1", "--models", str(folder / "models.yaml"), *SHORT]


@pytest.fixture(scope="module")
def table(arguments, tmp_path_factory):
    assert main(arguments) == 0
    lines = (tmp_path_factory.getbasetemp() / arguments[0] / "parts.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_figures_are_means_over_the_seeds(table, arguments, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / arguments[0] / "parts" / "original"
    found = [newest_test(folder / f"seed-{seed}")[1].auroc for seed in (0, 1)]
    row = next(row for row in table if row[0] == "first")
    assert row[1] == "2"
    assert row[2].startswith(f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f} (")


def test_colours_are_those_of_the_report(table, arguments, tmp_path_factory):
    run = read_run(newest_test(tmp_path_factory.getbasetemp() / arguments[0] / "parts" / "original" / "seed-0")[0])
    colours = run.metrics.baselines.colour_histogram
    row = next(row for row in table if row[0] == COLOURS)
    assert row[2].startswith(f"{colours.auroc:.3f} (")
    assert row[4].startswith(f"{colours.at_validation_threshold.balanced_accuracy:.3f} (")


def test_differences_are_to_the_first_model_and_to_the_colours(table):
    assert [row[0] for row in table[:15]] == [
        *["", "---", "first", "second", COLOURS, ""],
        *["less first", "---", "second", COLOURS, ""],
        *[f"less {COLOURS}", "---", "first", "second"],
    ]
    first, second = (
        float(next(row for row in table if row[0] == name)[2].split(" ")[0]) for name in ("first", "second")
    )
    less = table[8][1].replace("−", "-")
    assert float(less.split(" ")[0]) == pytest.approx(second - first, abs=0.0011)


def test_finished_runs_are_not_trained_again(table, arguments, monkeypatch):
    monkeypatch.setattr(engines, "run_command", lambda arguments: pytest.fail(f"ran {arguments}"))
    assert main(arguments) == 0


def test_an_unknown_model_is_named(arguments, capsys):
    assert main([*arguments[:8], "--only", "nosuch"]) == 2
    assert "--only: no model ['nosuch']" in capsys.readouterr().err


def test_the_shipped_models_are_configurations():
    models = read_models(MODELS)
    assert [model.name for model in models] == ["original", "keras", "cancernet", "compact", "residual"]
    assert [(model.name, model.runs) for model in models if not model.configs] == [("keras", 2)]


def test_shares_of_idc_are_those_of_the_cases(table):
    start = next(number for number, row in enumerate(table) if row[0] == "share of IDC by case")
    assert [row[0] for row in table[start + 2 :]] == ["first", "second", COLOURS]
    for row in table[start + 2 :]:
        assert -1 <= float(row[2].split(" ")[0].replace("−", "-")) <= 1
