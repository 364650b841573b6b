import pandas as pd
import pytest

from scripts.studies import engines, leak

QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.mark.filterwarnings("ignore:This split is by patch")
def test_both_splits_are_run_once_and_set_side_by_side(archive, cache, tmp_path, capsys, monkeypatch):
    options = [f"--data.cache={cache}", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", *QUICK]
    arguments = [str(archive), "--output", str(tmp_path), "--seeds", "0", *options]
    assert leak.main(arguments) == 0
    table = pd.read_csv(tmp_path / "leak.csv")
    assert table[["split", "seed"]].to_numpy().tolist() == [["patch", 0], ["case", 0]]
    difference = table.groupby("split")["auroc"].mean()
    assert f"{difference['patch'] - difference['case']:+.3f}" in (tmp_path / "leak.md").read_text()
    assert (tmp_path / "leak.png").stat().st_size > 1000

    # A second call finds everything finished and runs nothing.
    monkeypatch.setattr(engines, "run_command", lambda arguments: pytest.fail(f"ran {arguments}"))
    assert leak.main(arguments) == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "leak.csv"), table)


def test_a_run_that_fails_is_named(tmp_path, capsys):
    assert leak.main([str(tmp_path / "nosuch.zip"), "--output", str(tmp_path), *QUICK]) == 2
    assert "ended with status 2" in capsys.readouterr().err
