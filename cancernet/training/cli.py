"""The Lightning command line of the task and the data module: `fit`, `validate`, `test`, `predict`."""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cancernet.data.datamodule import IDCDataModule
from cancernet.errors import InputError
from cancernet.training.calibration import calibrate_checkpoint
from cancernet.training.callbacks import ResultFiles, RunRecord, TensorBoardFigures
from cancernet.training.checkpoints import data_state, read_checkpoint, recorded_network
from cancernet.training.task import ClassificationTask


class OneLineParser(LightningArgumentParser):
    """A parser that reports what is wrong in one line, without its usage text."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise `InputError` with the message on one line."""
        raise InputError(" ".join(str(message).split()))


class CancerNetCLI(LightningCLI):
    """LightningCLI with the run folder's rules: see README, "What a run leaves behind"."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the checkpoint options, `--checkpoint.monitor` and so on."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": "val/auroc",
                "checkpoint.mode": "max",
                "checkpoint.enable_version_counter": False,
                "checkpoint.auto_insert_metric_name": False,
            }
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands, each with the trainer's arguments that are no options."""
        fixed = {"weights_only", "verbose", "return_predictions"}
        return {name: {*skipped, *fixed} for name, skipped in LightningCLI.subcommands().items()}

    def fit(self, **arguments: Any) -> None:
        """Train; nothing in a checkpoint is executed when it is read."""
        self.trainer.fit(**arguments, weights_only=True)

    def validate(self, **arguments: Any) -> None:
        """Judge on the validation part."""
        self.trainer.validate(**arguments, verbose=True, weights_only=True)

    def test(self, **arguments: Any) -> None:
        """Judge on the test part; the result files hold more than Lightning's own table."""
        self.trainer.test(**arguments, verbose=False, weights_only=True)

    def predict(self, **arguments: Any) -> None:
        """Predict every patch; the predictions go to files, not to memory."""
        self.trainer.predict(**arguments, return_predictions=False, weights_only=True)

    def before_instantiate_classes(self) -> None:
        """Choose the callbacks that the command needs, and refuse to judge without a checkpoint."""
        config = self.config[str(self.subcommand)]
        callbacks: list[Any] = []
        if config.ckpt_path is not None:
            read_checkpoint(config.ckpt_path)
        if self.subcommand == "fit":
            # `save_last` of the checkpoint that watches a metric writes the last *best* epoch; this is the last one.
            callbacks = [ModelCheckpoint(filename="last", enable_version_counter=False)]
            if config.trainer.logger is not False:
                callbacks += [TensorBoardFigures(), LearningRateMonitor(logging_interval="epoch")]
        else:
            if config.ckpt_path is None:
                raise InputError(
                    f"{self.subcommand}: --ckpt_path is needed (without one, untrained weights would be judged); "
                    "give .../checkpoints/best.ckpt of a run"
                )
            config.trainer.logger = False
            callbacks = [ResultFiles(config.ckpt_path)]
        self.trainer_defaults["callbacks"] = callbacks

    def after_fit(self) -> None:
        """Calibrate what was saved, and print where the run is.

        One process does it: the others have nothing to wait for.
        """
        # Asking for the folder is a broadcast, so every process has to.
        folder = self.trainer.log_dir
        if not self.trainer.is_global_zero:
            return
        device, network = self.trainer.strategy.root_device, self.model.description["network"]
        anew = self.model.measure_batch_norm
        for path in self._saved_checkpoints():
            print(calibrate_checkpoint(path, self.datamodule, device, network, measure=anew), flush=True)
        print(folder, flush=True)

    def _saved_checkpoints(self) -> list[Path]:
        """Return the best and the last checkpoint of this fit, each once."""
        callbacks = [
            callback for callback in self.trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)
        ]
        names = [
            name for callback in callbacks for name in (callback.best_model_path, callback.last_model_path) if name
        ]
        return sorted({Path(name).resolve() for name in names if Path(name).is_file()})

    def after_test(self) -> None:
        """Print the metrics, and where the results are."""
        self._print_results()

    def after_predict(self) -> None:
        """Print where the predictions are."""
        self._print_results()

    def _print_results(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ResultFiles) and self.trainer.is_global_zero:
                callback.print()
                print(callback.folder, flush=True)


def run(command: str, arguments: list[str]) -> None:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        command: The subcommand.
        arguments: What follows it on the command line.

    Raises:
        InputError: What is wrong and the way out.
    """
    _quieten()
    with tempfile.TemporaryDirectory() as folder:
        if command != "fit":
            arguments = [*_recorded_arguments(arguments, Path(folder)), *arguments]
        try:
            CancerNetCLI(
                ClassificationTask,
                IDCDataModule,
                args=[command, *arguments],
                save_config_callback=RunRecord,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=0,
                # No dry run of validation: its handful of patches would be of one class.
                trainer_defaults={"num_sanity_val_steps": 0, "log_every_n_steps": 10, "max_epochs": 40},
                parser_class=OneLineParser,
                parser_kwargs={"prog": "cancernet"},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        except MisconfigurationException as error:
            # What Lightning finds wrong with the trainer's options is the user's to mend, not a fault to trace.
            raise InputError(" ".join(str(error).split())) from error


def _recorded_arguments(arguments: list[str], folder: Path) -> list[str]:
    """Say again what the checkpoint was trained as, so that `test --ckpt_path` alone is enough.

    What the user gives comes later on the command line and wins; the checks against what the model has seen do not
    depend on either.
    """
    path = _given(arguments, "--ckpt_path")
    if path is None:
        return []
    checkpoint = read_checkpoint(path)
    network = recorded_network(checkpoint, _given(arguments, "--model.network"), "--model.network")
    recorded = {"model": network, "data": data_state(checkpoint).get("arguments", {})}
    file = folder / "recorded.yaml"
    file.write_text(yaml.safe_dump(recorded), encoding="utf-8")
    return ["--config", str(file)]


def _given(arguments: list[str], option: str) -> str | None:
    """Return the value of an option on the command line, the last one where it stands there twice."""
    found = None
    for number, argument in enumerate(arguments):
        if argument == option and number + 1 < len(arguments):
            found = arguments[number + 1]
        elif argument.startswith(f"{option}="):
            found = argument.split("=", 1)[1]
    return found


def _quieten() -> None:
    """Hide warnings that give no advice which holds here."""
    # Batches are gathered from a memory map in the training process; more workers make that slower, not faster.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Averaged weights are what the checkpoint's state_dict holds; a test needs the callback no more.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", message=".*The dirpath has changed from.*")
    # Lightning's own use of a torch name.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # An advertisement.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.msg)
    # The command line is handed over as a list, on purpose.
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
