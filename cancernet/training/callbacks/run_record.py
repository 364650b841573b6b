"""The record of a fit: its configuration, its split, and calibrated checkpoints at its end."""

import os
from pathlib import Path

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from cancernet.data.datamodule import IDCDataModule
from cancernet.evaluation.run_folder import CONFIGURATION, write_split
from cancernet.files import write_text
from cancernet.training.calibration import calibrate_checkpoint
from cancernet.training.callbacks.checkpoints import saved_checkpoints


class ConfigFile(SaveConfigCallback):
    """Write the command line's configuration into the folder of a fit; a test leaves the run's own in place."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`, whole or not at all."""
        log_dir = trainer.log_dir  # a broadcast: every process has to ask
        if stage == "fit" and trainer.is_global_zero and log_dir is not None:
            write_text(Path(log_dir) / CONFIGURATION, self.parser.dump(self.config, skip_none=False))


class RunRecord(Callback):
    """Write `split.csv` (its format can be given to `--data.split`), `left_out.csv` and, from Python, `config.yaml`."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        log_dir = trainer.log_dir  # a broadcast: every process has to ask
        data = trainer.datamodule  # type: ignore[attr-defined]
        leaves_nothing = not trainer.loggers and not trainer.checkpoint_callbacks
        if not trainer.is_global_zero or log_dir is None or leaves_nothing or not isinstance(data, IDCDataModule):
            return
        folder = Path(log_dir)
        write_split(folder, data.split.table(data.store.index), data.split.left_out)
        if not any(isinstance(callback, SaveConfigCallback) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            write_text(folder / CONFIGURATION, self._describe(trainer, pl_module, data))

    @staticmethod
    def _describe(trainer: Trainer, task: LightningModule, data: IDCDataModule) -> str:
        """Say what a Trainer in Python runs, as far as `fit --config` can repeat it."""
        seed = os.environ.get("PL_GLOBAL_SEED")
        config = {
            "seed_everything": seed is not None and int(seed),
            "model": dict(task.hparams),
            "data": data.arguments,
            "trainer": {
                "max_epochs": trainer.max_epochs,
                "max_steps": trainer.max_steps,
                "precision": trainer.precision,
                "accumulate_grad_batches": trainer.accumulate_grad_batches,
                "gradient_clip_val": trainer.gradient_clip_val,
            },
        }
        return yaml.safe_dump(config, sort_keys=False)


class Calibration(Callback):
    """Calibrate the saved checkpoints on the validation part when a fit has ended.

    One process does it: the others have nothing to wait for.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose threshold and temperature, after recalibrating batch norm where the task asks for it."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or trainer.fast_dev_run or not isinstance(data, IDCDataModule):  # type: ignore[attr-defined]
            return
        device, network = trainer.strategy.root_device, pl_module.hparams["network"]
        measure = bool(pl_module.hparams["measure_batch_norm"])
        # As many as `limit_val_batches` lets the validation have.
        patches = sum(map(int, trainer.num_val_batches)) * data.batch_size * trainer.world_size or None
        for path in saved_checkpoints(trainer):
            print(
                calibrate_checkpoint(path, data, device, type(pl_module), network, None, measure, patches), flush=True
            )
