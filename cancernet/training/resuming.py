"""What a run can be resumed from: nothing left to train, the checkpoint of one's own SLURM job, the line to type."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

from cancernet.checkpoints import read_checkpoint
from cancernet.errors import InputError
from cancernet.evaluation.run_folder import CONFIGURATION
from cancernet.training.checkpoints import recorded_calibration


def has_ended(checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int = -1) -> bool:
    """Tell whether a checkpoint is of the end of a run of that length."""
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {"current": {"processed": 0}})
    by_epochs = max_epochs is not None and 0 <= max_epochs <= progress["current"]["processed"]
    return by_epochs or 0 <= max_steps <= checkpoint["global_step"]


def require_work_left(checkpoint: dict[str, Any], max_epochs: int | None, max_steps: int = -1) -> None:
    """Refuse to resume a run that is complete; one that lacks its calibration gets it.

    Raises:
        InputError: Says how to train on.
    """
    if has_ended(checkpoint, max_epochs, max_steps) and recorded_calibration(checkpoint) is not None:
        reached, option = ("max_epochs", max_epochs) if has_ended(checkpoint, max_epochs) else ("max_steps", max_steps)
        raise InputError(
            f"nothing left to train: the checkpoint is of the end of a run of {reached} {option}, and calibrated; "
            f"raise --trainer.{reached}"
        )


def checkpoint_of_own_job(trainer: Trainer) -> Path | None:
    """Return what this SLURM job wrote before it was queued again; another job's is never touched.

    The folder of a run under SLURM bears the number of the job, which its checkpoints hold as well. Where another
    cluster's job of that number has used it, the run gets a new one.
    """
    job = os.environ.get("SLURM_JOB_ID")
    logger: Any = trainer.logger
    if not SLURMEnvironment.detect() or job is None or str(getattr(logger, "_version", None)) != job:
        return None
    newest = newest_checkpoint(Path(logger.log_dir) / "checkpoints")
    if newest is None or read_checkpoint(newest).get("resume", {}).get("job") == job:
        return newest
    logger._version = None
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the latest step among those that a run can be resumed from; None without any."""
    there = [folder / f"{name}.ckpt" for name in ("last", "latest") if (folder / f"{name}.ckpt").is_file()]
    return max(there, key=lambda path: read_checkpoint(path)["global_step"], default=None)


def describe_resuming(trainer: Trainer) -> list[str]:
    """Say, in lines, how to go on with a run that was stopped, its folder last."""
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    newest = None if folder is None else newest_checkpoint(Path(folder))
    if newest is None:
        return ["no checkpoint had been written: start again"]
    run = newest.parent.parent
    program = "cancernet" if Path(sys.argv[0]).name == "cancernet" else f"{sys.executable} -m cancernet"
    words = ["fit", "--config", str(run / CONFIGURATION), "--ckpt_path", str(newest)]
    step = read_checkpoint(newest)["global_step"]
    return [f"kept up to step {step}; to go on: {program} {shlex.join(words)}", str(run)]
