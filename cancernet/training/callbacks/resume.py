"""What a checkpoint needs for a resumed run to be, bit for bit, the run that was not interrupted."""

import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from cancernet.data.batches import PatchLoader


class ExactResume(Callback):
    """Keep the state that Lightning leaves out of a checkpoint.

    That is torch's generators, which dropout draws from, and the training metrics of an epoch that is not complete, of
    each process; and the position of the training loader in its epoch.
    """

    _restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the state of all processes; each of them takes part in saving."""
        own = {"generators": _generator_states(pl_module.device), "metrics": pl_module.train_metrics.state()}  # type: ignore[operator, union-attr]
        loader = trainer.train_dataloader
        checkpoint["resume"] = {
            "processes": _gather(own, trainer.world_size),
            "job": os.environ.get("SLURM_JOB_ID"),
            "loader": loader.state_dict() if isinstance(loader, PatchLoader) else None,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state until training starts; a checkpoint of version 0.1.0 has none."""
        self._restored = checkpoint.get("resume")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the state, when nothing but training is left to draw random numbers."""
        if trainer.fit_loop.restarted_on_epoch_end:
            _begin_next_epoch(trainer.fit_loop)
        state, self._restored = self._restored, None
        if state is None:
            return
        loader = trainer.train_dataloader
        if isinstance(loader, PatchLoader) and state["loader"] is not None:
            loader.load_state_dict(state["loader"])
        processes = state["processes"]
        if len(processes) != trainer.world_size:
            rank_zero_warn(
                f"Resuming in {trainer.world_size} processes what {len(processes)} trained: dropout draws other "
                "numbers than it would have without the interruption."
            )
            return
        own = processes[trainer.global_rank]
        _restore_generators(own["generators"], pl_module.device)
        pl_module.train_metrics.restore(own["metrics"])  # type: ignore[operator, union-attr]


def _begin_next_epoch(loop: Any) -> None:
    """Begin the epoch after the one that had ended; with `max_steps` Lightning would end that one a second time."""
    loop.epoch_progress.increment_completed()
    loop._restarting = loop.epoch_loop.restarting = False  # the latter also in the loops below
    loop.reset_restart_stage()
    loop.epoch_loop.reset_restart_stage()


def _generator_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_generators(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"].clone())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].clone(), device)


def _gather(own: dict[str, Any], processes: int) -> list[dict[str, Any]]:
    if processes == 1:
        return [own]
    states: list[Any] = [None] * processes
    torch.distributed.all_gather_object(states, own)
    return states
