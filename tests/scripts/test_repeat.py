import shutil

import numpy as np
import pandas as pd
import pytest

from cancernet.checkpoints import read_checkpoint, replace_checkpoint
from cancernet.cli import main as cancernet
from cancernet.errors import InputError
from cancernet.evaluation.bootstrap import paired_mean_difference
from cancernet.evaluation.results import SYNTHETIC_WARNING
from scripts.studies import ablate, engines, keras_fit, repeat
from scripts.studies.repeat import COMPARED, contrast, main, summarise
from scripts.studies.trials import plan, spell_out

QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", *QUICK]


@pytest.fixture(scope="module")
def data(archive, cache, tmp_path_factory):
    """Options of fit: the archive under one split for every seed."""
    parts = tmp_path_factory.mktemp("split") / "parts.csv"
    names = [str(7000 + number) for number in range(12)]
    pd.DataFrame({"case": names, "part": ["train"] * 6 + ["validation"] * 2 + ["test"] * 4}).to_csv(parts, index=False)
    return [f"--data.root={archive}", f"--data.cache={cache}", f"--data.split={parts}"]


@pytest.fixture(scope="module")
def repeated(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "plain"
    assert main([str(output), "--seeds", "0", "1", *data, *SHORT]) == 0
    return output


def refuse_runs(monkeypatch):
    monkeypatch.setattr(engines, "run_command", lambda arguments: pytest.fail(f"ran {arguments}"))


def test_each_seed_is_run_once(repeated, data, monkeypatch):
    runs = pd.read_csv(repeated / "runs.csv")
    assert runs["seed"].tolist() == [0, 1]
    assert runs["auroc"].nunique() == 2
    refuse_runs(monkeypatch)
    assert main([str(repeated), "--seeds", "0", "1", *data, *SHORT]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(repeated / "runs.csv"), runs)


def test_a_run_is_not_passed_off_as_one_of_another_configuration(repeated, data, monkeypatch, tmp_path, capsys):
    refuse_runs(monkeypatch)
    assert main([str(repeated), "--seeds", "0", *data, *SHORT, "--model.dropout=0.5"]) == 2
    assert "first difference: --model.dropout=0.5); give another output folder" in capsys.readouterr().err


def test_a_configuration_file_counts_by_its_content(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("model: {dropout: 0.5}")
    before = spell_out(["--config", str(file), "--trainer.max_epochs=1"])
    assert before == ["--config", {"model": {"dropout": 0.5}}, "--trainer.max_epochs=1"]
    file.write_text("model: {dropout: 0.25}")
    assert spell_out([f"--config={file}"]) == [{"model": {"dropout": 0.25}}]


def test_another_checkpoint_is_tested_without_training_again(repeated, data, monkeypatch, tmp_path):
    ran = []
    run = engines.run_command
    monkeypatch.setattr(engines, "run_command", lambda arguments: (ran.append(arguments[0]), run(arguments)))
    repeat.repeat(plan(repeated, [1]), [*data, *SHORT], "test", "last")
    assert ran == ["test"]


def test_validation_never_looks_at_the_test_part(repeated, data, monkeypatch):
    refuse_runs(monkeypatch)
    runs = repeat.repeat(plan(repeated, [0, 1]), [*data, *SHORT], "validation")
    assert list(runs.columns) == ["seed", "auroc", "average_precision", "balanced_accuracy"]


def test_every_fold_of_every_seed_is_a_trial(tmp_path):
    trials = plan(tmp_path, [3, 4], folds=5)
    assert len({trial.folder for trial in trials}) == 10
    assert trials[6].row == {"seed": 4, "fold": 1}
    assert {"--seed_everything=4", "--data.seed=4", "--data.folds=5", "--data.fold=1"} <= set(trials[6].options)


def test_folds_share_out_the_cases(archive, cache, tmp_path):
    output = tmp_path / "folds"
    options = [f"--data.root={archive}", f"--data.cache={cache}", *SHORT]
    assert main([str(output), "--seeds", "0", "--folds", "2", *options]) == 0
    assert pd.read_csv(output / "runs.csv")[["seed", "fold"]].to_numpy().tolist() == [[0, 0], [0, 1]]
    tested = [
        set(table.loc[table["part"] == "test", "case"])
        for table in map(pd.read_parquet, sorted(output.glob("*/lightning_logs/*/predictions.parquet")))
    ]
    assert len(tested[0] | tested[1]) == 12
    assert not tested[0] & tested[1]


def test_a_configuration_is_contrasted_with_another_on_the_same_patches(repeated, data, tmp_path):
    other = tmp_path / "other"
    arguments = [str(other), "--seeds", "0", "1", "--against", str(repeated), *data, *SHORT]
    assert main([*arguments, "--model.optimizer.lr=0.01"]) == 0
    written = pd.read_csv(other / "against-plain.csv", index_col="metric")
    assert list(written.index) == [name for name in paired_metrics() if name in COMPARED]
    means = [pd.read_csv(folder / "runs.csv")["auroc"].mean() for folder in (other, repeated)]
    assert written.loc["auroc", ["a", "b"]].tolist() == pytest.approx(means, abs=1e-6)
    assert written.loc["auroc", "low"] <= written.loc["auroc", "estimate"] <= written.loc["auroc", "high"]
    with pytest.raises(InputError, match="no tested run"):
        contrast(plan(other, [0]), plan(tmp_path / "none", [0]))


def paired_metrics():
    label, probability = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.6])
    return paired_mean_difference(label, [(probability, 0.5)], [(probability, 0.5)], [1, 1, 2, 2], draws=5)


def test_a_run_that_leaves_nothing_is_named(tmp_path, data, capsys):
    assert main([str(tmp_path), "--seeds", "0", *data, *SHORT, "--trainer.enable_checkpointing=false"]) == 2
    assert "seed-0" in capsys.readouterr().err


def test_summary_is_mean_and_sample_deviation():
    runs = pd.DataFrame({"seed": [0, 1, 2], "auroc": [0.8, 0.9, 1.0]})
    assert summarise(runs).loc["auroc"].tolist() == pytest.approx([0.9, 0.1, 3])


def test_variants_change_what_they_say_and_are_held_against_the_first(data, tmp_path, capsys):
    study = tmp_path / "study.yaml"
    study.write_text("base: {}\nslow: {title: slow learning, model: {optimizer: {lr: 1.0e-9}}}\n")
    arguments = [str(tmp_path / "out"), "--variants", str(study), "--seeds", "0", *data, *SHORT]
    assert ablate.main(arguments) == 0
    table = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert table["variant"].tolist() == ["base", "slow"]
    means = table.groupby("variant")["auroc"].mean()
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert f"| slow learning | {means['slow']:.3f} ±" in text
    assert "| base |" in text
    assert not list((tmp_path / "out").rglob("metrics.json"))
    config = next((tmp_path / "out" / "slow").rglob("config.yaml")).read_text()
    assert "lr: 1.0e-09" in config
    assert ablate.main([*arguments, "--only", "fast"]) == 2
    assert "base, slow" in capsys.readouterr().err


@pytest.mark.parametrize("synthetic", [True, False])
def test_tables_of_synthetic_data_say_so(synthetic, repeated, data, tmp_path, monkeypatch, capsys):
    """As the store says it, which records it in the checkpoint with the threshold."""
    copy = shutil.copytree(repeated, tmp_path / "runs")
    for file in copy.rglob("*.ckpt"):
        content = read_checkpoint(file, mapped=False)
        content["cancernet"]["calibration"]["data"]["synthetic"] = synthetic
        replace_checkpoint(file, content)
    refuse_runs(monkeypatch)
    assert main([str(copy), "--seeds", "0", *data, *SHORT]) == 0
    assert (SYNTHETIC_WARNING in capsys.readouterr().out) == synthetic


def test_differences_are_taken_between_runs_of_the_same_fold():
    first = pd.DataFrame({"seed": 0, "fold": [0, 1, 2], "auroc": [0.7, 0.8, 0.9]})
    first = first.assign(average_precision=0.5, balanced_accuracy=0.5)
    second = first.assign(auroc=first["auroc"] + [0.01, 0.02, 0.03])
    text = ablate.tabulate({"first": first, "second": second})
    assert "| second | 0.820 ± 0.110 | +0.020 ± 0.006 |" in text
    assert "| first | 0.800 ± 0.100 | 0.000 ± 0.000 |" in text.replace("+0.000", "0.000")


def test_the_shipped_variants_are_configurations(tmp_path):
    """All at once, as parsing takes its time: what one name says twice is checked in its last form."""
    everything: dict = {}
    for variant in ablate.read_variants(ablate.VARIANTS):
        for room, settings in variant.change.items():
            everything.setdefault(room, {}).update(settings)
    file = tmp_path / "variant.yaml"
    file.write_text(ablate.yaml.safe_dump(everything))
    assert cancernet(["fit", "--config=configs/cancernet.yaml", f"--config={file}", "--print_config"]) == 0


@pytest.mark.filterwarnings("ignore:This model's weights came from elsewhere")
def test_keras_own_fit_is_tested_like_a_run(repeated, archive, cache, data, capsys):
    output = repeated.parent / "keras"
    split = next(option for option in data if "split" in option).split("=")[1]
    arguments = [str(output), "--seeds", "0", "--epochs", "1", "--root", str(archive), "--cache", str(cache)]
    assert keras_fit.main([*arguments, "--split", split]) == 0
    assert "balanced_accuracy_at_validation_threshold" in capsys.readouterr().out
    given = {"root": str(archive), "split": split, "cache": str(cache)}
    jobs = [keras_fit.KerasJob(trial, given, epochs=1) for trial in plan(output, [0, 1])]
    assert [job.is_complete() for job in jobs] == [True, False]
    engines.run_side_by_side(jobs, count=2)
    assert [job.is_complete() for job in jobs] == [True, True]
    differences = contrast(plan(repeated, [0, 1]), plan(output, [0, 1])).set_index("metric")
    assert differences["draws"].min() > 1000


@pytest.mark.filterwarnings("ignore:This model's weights came from elsewhere")
def test_keras_own_fit_goes_on_from_its_last_whole_epoch(archive, cache, tmp_path, monkeypatch, capsys):
    start, started = keras_fit.Batches.start, []

    def stop_at_the_second(batches, epoch):
        started.append(epoch)
        if epoch == 2 and started.count(2) == 1:
            raise KeyboardInterrupt
        start(batches, epoch)

    monkeypatch.setattr(keras_fit.Batches, "start", stop_at_the_second)
    arguments = [str(tmp_path), "--seeds=0", "--epochs=2", f"--root={archive}", f"--cache={cache}"]
    assert keras_fit.main(arguments) == 130
    assert keras_fit.main(arguments) == 0
    assert started == [1, 2, 2]
    assert [
        file.name for file in (tmp_path / "seed-0" / "lightning_logs" / "version_0").iterdir() if "backup" in file.name
    ] == []
