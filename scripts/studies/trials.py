"""The runs of a study: what each is, what is finished of it, and what completes it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main as cancernet
from cancernet.errors import InputError
from cancernet.evaluation.results import SYNTHETIC_WARNING, TestMetrics
from cancernet.evaluation.run_folder import METRICS, read_metrics
from cancernet.files import write_json
from cancernet.signals import NUMBERS, Stopped
from cancernet.training.checkpoints import recorded_calibration
from cancernet.yaml_files import read_yaml

Part = Literal["validation", "test"]
CANCERNET = "cancernet"

FIGURES = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "f1")
"""Columns of tested runs, at threshold 0.5."""
VALIDATION_FIGURES = ("auroc", "average_precision", "balanced_accuracy")
"""Columns of validated runs; the balanced accuracy is at the threshold that was chosen on the same part."""
AT_CHOSEN = "balanced_accuracy_at_validation_threshold"
RECORD = "options.json"
"""File in the folder of a trial: the options that its run was made with."""
CONFIG_OPTIONS = ("--config", "-c")
RESUMABLE = ("last.ckpt", "latest.ckpt")
"""Names of the checkpoints that training goes on from; the best one may be of an epoch long past."""
STOPPED = tuple(128 + number for number in NUMBERS)
"""Exit statuses of a command that a signal ended."""


class Command(Protocol):
    """Runs the command line of a module, of `cancernet` where none is named; raises `InputError` where it fails."""

    def __call__(self, arguments: list[str], module: str = CANCERNET) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Trial:
    """One run of a study: its seed, its fold, the number of folds (None without cross-validation), and its folder."""

    seed: int
    folder: Path
    fold: int | None = None
    folds: int | None = None

    @property
    def options(self) -> list[str]:
        """Options of `fit` for this trial."""
        seeds = [f"--seed_everything={self.seed}", f"--data.seed={self.seed}"]
        fold = [] if self.fold is None else [f"--data.folds={self.folds}", f"--data.fold={self.fold}"]
        return [*seeds, *fold, f"--trainer.default_root_dir={self.folder}"]

    @property
    def row(self) -> dict[str, int]:
        """Columns that tell it from the others in a table."""
        return {"seed": self.seed} | ({} if self.fold is None else {"fold": self.fold})


def plan(output: Path, seeds: Sequence[int], folds: int | None = None) -> list[Trial]:
    """List the trials of a study, each with a folder: every seed, or every fold of every seed."""
    if folds is None:
        return [Trial(seed, output / f"seed-{seed}") for seed in seeds]
    return [Trial(seed, output / f"seed-{seed}-fold-{fold}", fold, folds) for seed in seeds for fold in range(folds)]


@dataclass
class Job:
    """A configuration to train and evaluate in one trial.

    Args:
        trial: From `plan`. Its seed is that of the weights, the patches' order and, where it is random, the split.
        arguments: Command line of `fit`, without seeds and folders.
        part: `validation` never looks at the test part, so that recipes can be chosen by it.
        checkpoint: Name of the checkpoint that is evaluated, `best` or `last`.
    """

    trial: Trial
    arguments: Sequence[str]
    part: Part = "test"
    checkpoint: str = "best"

    def __post_init__(self) -> None:
        # Read here, and once: another machine finds the files of a relative path elsewhere.
        self.options = spell_out(self.arguments)

    @property
    def file(self) -> str:
        """Name of the checkpoint's file."""
        return f"{self.checkpoint}.ckpt"

    def is_complete(self) -> bool:
        """Return whether all that `read_figures` reads is there.

        Raises:
            InputError: The fit is finished, but was made with other options.
        """
        if fitted(self.trial.folder, self.file) is None:
            return False
        _check_same(self.trial.folder / RECORD, self.options)
        return self.part == "validation" or newest_test(self.trial.folder, self.file) is not None

    def complete(self, command: Command) -> None:
        """Run what is missing; a fit that was interrupted goes on from its last checkpoint.

        Raises:
            InputError: A command failed or left nothing to read, or the finished fit was made with other options.
        """
        if self.is_complete():
            return
        file = fitted(self.trial.folder, self.file) or self._fit(command)
        if self.part == "test" and newest_test(self.trial.folder, self.file) is None:
            command(["test", f"--ckpt_path={file}"])

    def _fit(self, command: Command) -> Path:
        folder = self.trial.folder
        started = _recorded_options(folder / RECORD) == self.options
        interrupted = _interrupted(folder) if started else None
        write_json(folder / RECORD, {"options": self.options})
        resume = [] if interrupted is None else [f"--ckpt_path={interrupted}"]
        command(["fit", *self.arguments, *self.trial.options, *resume])
        if (file := fitted(folder, self.file)) is None:
            raise InputError(f"{folder}: fit left no {self.file} here; leave checkpoints and their folder on")
        return file


def read_figures(job: Job) -> dict[str, float | None]:
    """Return the metrics of a job's part, by name.

    Raises:
        InputError: The job is not complete, or an earlier version left no such metrics.
    """
    folder = job.trial.folder
    if job.part == "test":
        if (found := newest_test(folder, job.file)) is None:
            raise InputError(f"{folder}: test left no {METRICS} of {job.file} here")
        return columns(found[1])
    if (file := fitted(job.trial.folder, job.file)) is None:
        raise InputError(f"{folder}: holds no finished fit; run it again")
    calibration = recorded_calibration(read_checkpoint(file))
    if calibration is None or "auroc" not in calibration:
        raise InputError(f"{file}: an earlier version calibrated it; run `cancernet calibrate {file}`")
    return {name: calibration[name] for name in VALIDATION_FIGURES}


def data_options(arguments: Mapping[str, str | None]) -> list[str]:
    """Return arguments of the data module as words of a command line, those that are None left out."""
    return [f"--data.{name}={value}" for name, value in arguments.items() if value is not None]


def spell_out(arguments: Sequence[str]) -> list[Any]:
    """Return a command line as JSON gives it back, the names of configuration files replaced by their content."""
    spelled: list[Any] = []
    previous = ""
    for argument in arguments:
        name, _, value = argument.partition("=")
        file = value if name in CONFIG_OPTIONS else argument if previous in CONFIG_OPTIONS else ""
        readable = file != "" and Path(file).is_file()
        spelled.append(read_yaml(file) if readable else argument)
        previous = argument
    return json.loads(json.dumps(spelled))


def _recorded_options(record: Path) -> list[Any] | None:
    return json.loads(record.read_text(encoding="utf-8"))["options"] if record.exists() else None


def _check_same(record: Path, wanted: list[Any]) -> None:
    """Refuse a finished run of another configuration.

    Raises:
        InputError: The finished run was made with other options than those given now.
    """
    made = _recorded_options(record)
    if made not in (None, wanted):
        other = next((a for a, b in zip_longest(wanted, made or []) if a != b), None)
        raise InputError(
            f"{record.parent}: finished with other options than these (first difference: {other}); "
            "give another output folder, or remove this one"
        )


def columns(metrics: TestMetrics) -> dict[str, float | None]:
    """Return the figures of a test that stand in a table of runs."""
    chosen = metrics.at_validation_threshold
    shown = {name: getattr(metrics, name) for name in FIGURES}
    return shown if chosen is None else {**shown, AT_CHOSEN: chosen.balanced_accuracy}


def _checkpoints(folder: Path, *patterns: str) -> list[Path]:
    """Return the checkpoints of a trial whose names match, the newest first."""
    files = [file for pattern in patterns for file in folder.glob(f"lightning_logs/*/checkpoints/{pattern}")]
    return sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)


def fitted(folder: Path, file: str) -> Path | None:
    """Return the newest checkpoint of this name of a fit that came to its end: it is calibrated there."""
    return next((found for found in _checkpoints(folder, file) if _is_calibrated(found)), None)


def _is_calibrated(file: Path) -> bool:
    return recorded_calibration(read_checkpoint(file)) is not None


def _interrupted(folder: Path) -> Path | None:
    """Return the newest checkpoint of a fit that did not come to its end."""
    return next((file for file in _checkpoints(folder, *RESUMABLE) if not _is_calibrated(file)), None)


def warning(folder: Path) -> str:
    """Return what stands above the tables of a study, of which this is a finished run: a sentence on synthetic data."""
    file = fitted(folder, "*.ckpt")
    calibration = None if file is None else recorded_calibration(read_checkpoint(file))
    return f"{SYNTHETIC_WARNING}\n\n" if calibration is not None and calibration["data"]["synthetic"] else ""


def newest_test(folder: Path, checkpoint: str | None = None) -> tuple[Path, TestMetrics] | None:
    """Return the run folder and the metrics of the newest test, of a certain checkpoint if it is given."""
    for file in sorted(folder.glob(f"lightning_logs/**/{METRICS}"), key=lambda file: -file.stat().st_mtime):
        metrics = read_metrics(file.parent)
        if checkpoint in (None, metrics.checkpoint):
            return file.parent, metrics
    return None


def run_command(arguments: list[str], module: str = CANCERNET) -> None:
    """Run a command of `cancernet`, or of another module, in this process.

    Raises:
        InputError: It failed, and has said why.
        Stopped: A signal ended it, and the study with it.
    """
    status = cancernet(arguments) if module == CANCERNET else import_module(module).main(arguments)
    if status in STOPPED:
        raise Stopped(status - 128, said=True)
    if status:
        raise InputError(f"`{module} {' '.join(arguments)}` ended with status {status}; fix that and run again")
