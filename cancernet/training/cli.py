"""The Lightning command line of the task and the data module: `fit`, `validate`, `test`, `predict`."""

import logging
import re
import sys
import warnings
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cancernet.checkpoints import read_checkpoint
from cancernet.data.arguments import recorded_arguments
from cancernet.data.datamodule import IDCDataModule
from cancernet.errors import InputError, brief, one_line
from cancernet.evaluation.terminal import print_metrics
from cancernet.options import OneLineErrors, shorten
from cancernet.preflight import needs_checkpoint
from cancernet.pretrained import locate
from cancernet.signals import Stopped
from cancernet.training.callbacks.checkpoints import RunCheckpoint
from cancernet.training.callbacks.results import ResultFiles
from cancernet.training.callbacks.run_record import ConfigFile
from cancernet.training.checkpoints import data_state, trusted_network_config
from cancernet.training.features import dropped_callbacks, require_supported
from cancernet.training.resuming import checkpoint_of_own_job, describe_resuming, require_work_left
from cancernet.training.task import ClassificationTask
from cancernet.yaml_files import bound_parsers

RENAMED = {
    "learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "momentum": "optimizer.momentum",
    "learning_rate_decay": "optimizer.lr_decay",
    "initial_accumulator": "optimizer.initial_accumulator_value",
    "warmup": "schedule.warmup",
    "test_time_symmetries": "tta",
}
"""Options of the model in version 0.1.0 -> today's."""


class OneLineParser(OneLineErrors, LightningArgumentParser):
    """A parser of Lightning's options whose errors are one line."""

    def hint(self, line: str) -> str:
        """Return today's name of an option that was renamed."""
        old = next((name for name in RENAMED if re.search(rf"\bmodel\.{name}\b", line)), None)
        for group in ("optimizer", "schedule"):
            if f'"model.{group}": Unable to load config' in line:
                return f"; model.{group} is now a group: model.{group}.name, and its settings next to it"
        return "" if old is None else f"; model.{old} is now model.{RENAMED[old]}"


class CancerNetCLI(LightningCLI):
    """LightningCLI that fills in what a checkpoint records; what runs leave behind, the task's callbacks write."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the best checkpoint, `--checkpoint.monitor` and so on."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, with what the checkpoint records as defaults, whether an option or a file names the checkpoint."""
        command = args[0]
        recorded = {} if command == "fit" else self._recorded(parser, args)
        self._subcommand_parsers[command].set_defaults(recorded)
        self.config = parser.parse_args(args)
        self._say_what_is_dropped(args)
        for name, value in recorded.items():
            if (now := self.config[command].get(name)) != value:
                print(f"{name} is {now} as given; the checkpoint was trained with {value}", file=sys.stderr, flush=True)

    def _say_what_is_dropped(self, args: list[str]) -> None:
        """Name the callbacks of one configuration file that another one replaces."""
        files = [path for path in self.config[args[0]].get("config") or () if path is not None]
        if len(files) > 1:
            contents = [(str(path.relative), yaml.safe_load(path.get_content())) for path in files]
            kept = [callback.class_path for callback in self.config[args[0]].trainer.callbacks or ()]
            for line in dropped_callbacks(contents, kept):
                print(f"callback {line}", file=sys.stderr, flush=True)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Build the trainer, without checkpoints where none are wanted."""
        if config.get("enable_checkpointing") is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, RunCheckpoint)]
        return super()._instantiate_trainer(config, callbacks)

    @staticmethod
    def _recorded(parser: LightningArgumentParser, args: list[str]) -> dict[str, Any]:
        """Return what a checkpoint was trained as, by option, so that `test --ckpt_path` alone is enough.

        Raises:
            InputError: No checkpoint is given (untrained weights would be evaluated), or it cannot be used.
        """
        asked = [word for word in args if not word.startswith("--print_config")]  # that one prints and leaves
        given = parser.parse_args(asked, defaults=False)[args[0]]
        if given.get("ckpt_path") is None:
            if asked != args:
                return {}
            raise needs_checkpoint(args[0])
        checkpoint = read_checkpoint(given.ckpt_path)
        named = given.get("model", {}).get("network")
        root_given = given.get("data", {}).get("root") is not None
        recorded = {
            "model": trusted_network_config(checkpoint, named, "--model.network"),
            "data": recorded_arguments(data_state(checkpoint).get("arguments", {}), root_given),
        }
        return {f"{group}.{name}": value for group, values in recorded.items() for name, value in values.items()}

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as it is: Lightning would let the checkpoint win over the command line."""

    def before_instantiate_classes(self) -> None:
        """Find a missing checkpoint before the data are opened; log nothing but a fit."""
        config = self.config[str(self.subcommand)]
        if config.ckpt_path is not None and "://" not in config.ckpt_path:
            config.ckpt_path = str(locate(config.ckpt_path))
        if self.subcommand != "fit":
            config.trainer.logger = False
        elif config.ckpt_path is not None:
            options = config.trainer
            require_work_left(read_checkpoint(config.ckpt_path), options.max_epochs, options.max_steps)

    def fit(self, **arguments: Any) -> None:
        """Train; where a signal stops it, say how to go on."""
        if arguments.get("ckpt_path") is None:
            arguments["ckpt_path"] = checkpoint_of_own_job(self.trainer)
            # Or Lightning would resume from the file that any other SLURM job has left in this root.
            self.trainer._checkpoint_connector._user_managed = arguments["ckpt_path"] is None
            if arguments["ckpt_path"] is not None:  # in the folder that it has used before
                warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        require_supported(self.trainer)
        try:
            self.trainer.fit(**arguments)
        except Stopped as stop:
            if self.trainer.is_global_zero:
                print(stop, *describe_resuming(self.trainer), sep="\n", flush=True)
            stop.said = True
            raise

    def instantiate_classes(self) -> None:
        """Build trainer, model and data.

        Raises:
            InputError: An option names what cannot be built: a class, a value out of range, a missing package.
        """
        try:
            super().instantiate_classes()
        except (ValueError, ImportError, MisconfigurationException) as error:
            raise InputError(brief(shorten(one_line(error)))) from error

    def validate(self, **arguments: Any) -> None:
        """Evaluate on the validation part."""
        self.trainer.validate(**arguments, verbose=True)

    def test(self, **arguments: Any) -> None:
        """Evaluate on the test part; the result files hold more than Lightning's own table."""
        self.trainer.test(**arguments, verbose=False)

    def predict(self, **arguments: Any) -> None:
        """Predict every patch; the predictions go to files, not to memory."""
        self.trainer.predict(**arguments, return_predictions=False)

    def after_fit(self) -> None:
        """Print where the run is."""
        folder = self.trainer.log_dir  # a broadcast: every process has to ask
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            print(folder, flush=True)

    def after_test(self) -> None:
        """Print the metrics, and where the results are."""
        self._print_results()

    def after_predict(self) -> None:
        """Print where the predictions are."""
        self._print_results()

    def _print_results(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ResultFiles) and callback.folder is not None:
                if callback.metrics is not None:
                    print_metrics(callback.metrics)
                elif callback.part_of is not None:
                    print(f"Part of the predictions: {callback.part_of}")
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
    bound_parsers()
    try:
        CancerNetCLI(
            ClassificationTask,
            IDCDataModule,
            args=[command, *arguments],
            save_config_callback=ConfigFile,
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
        # What Lightning finds wrong with the trainer's options is the user's to mend.
        raise InputError(one_line(error)) from error
    finally:
        # Lightning leaves gloo's process group to the end of the interpreter, whose threads then may abort the process.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _quieten() -> None:
    """Hide warnings whose advice does not hold here."""
    # Batches are gathered from a memory map in the training process; more workers make that slower, not faster.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Averaged weights are what the checkpoint's state_dict holds; a test needs the callback no more.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    # Lightning's own use of a torch name.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # An advertisement, and a line on callbacks that the task brings on purpose.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.msg and "will override existing callbacks" not in record.msg
    )
