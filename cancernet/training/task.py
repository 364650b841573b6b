"""The LightningModule: one step for all stages, over a Keras network that runs as fused torch calls."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from cancernet import __version__
from cancernet.checkpoints import read_checkpoint
from cancernet.data.datamodule import IDCDataModule
from cancernet.model.registry import NetworkArguments, create_network
from cancernet.training.acceleration import compile_network, keep_freed_memory, refuse_batch_norm_sync
from cancernet.training.batch_norm import set_momentum
from cancernet.training.callbacks import run_callbacks
from cancernet.training.checkpoint_io import AtomicCheckpointIO
from cancernet.training.checkpoints import (
    NETWORK,
    recorded_settings,
    require_data_record,
    require_same_network,
    require_same_optimizer,
    require_same_weights,
    trusted_network_config,
)
from cancernet.training.inference import averaged_logit, idc_logit
from cancernet.training.loss import ClassWeights, TrainingLoss, cross_entropy
from cancernet.training.metrics import CURVES, StageMetrics
from cancernet.training.optimization import OptimizerSettings, ScheduleSettings, build_optimizer, build_schedule
from cancernet.training.resuming import require_work_left
from cancernet.training.weights import start_from

LOSS_EVERY = 10
"""The progress bar shows the loss of every tenth batch: to ask for it is to wait for the device."""


class ClassificationTask(LightningModule):
    """Train and evaluate a network that tells IDC (1) from benign (0) patches.

    Args:
        network: `cancernet`, the network of 2019; `compact` or `residual`, smaller and without its large matrix; or the
            dotted path of a callable that returns a Keras model, such as keras.applications.MobileNetV2. Its input is
            RGB scaled to [0, 1].
        network_arguments: Keyword arguments for a network given by its path: numbers, text, lists.
        classes: 2 for two units under a softmax, as in 2019, or 1 for a single logit.
        image_size: Side of the network's input in pixels; patches of another size are resized on the device.
        batch_norm_momentum: Share of the moving statistics that each batch keeps (as in Keras, whose default is 0.99),
            0 to 1.
        measure_batch_norm: Recalibrate batch norm when training has ended (precise batch norm): its statistics are
            measured on training patches without dropout and augmentation.
        optimizer: Name and settings of the optimiser.
        schedule: Name and warm-up of the learning-rate schedule.
        class_weights: `none`, `balanced` (largest class count / class count, as in 2019) or two numbers, benign first;
            in the training loss only.
        label_smoothing: Share of the label, 0 to 1, spread evenly over both classes; in the training loss only.
        mixup: Train on pairs of patches mixed in shares from Beta(mixup, mixup) (Zhang et al. 2018); 0 mixes none.
        dropout: Factor on the network's dropout rates; 0 switches dropout off.
        tta: Test-time augmentation: average the logit over the eight symmetries of the square wherever the trained
            network is used. Calibration belongs to it, so `calibrate` changes it, not `test`.
        compile: Run the network through torch.compile; the first batches then take a minute longer. `reduce-overhead`
            also replays CUDA graphs, on a GPU.
        weights: Start from these weights: a file that Keras or tf.keras saved, or a checkpoint of this project.

    Raises:
        InputError: An unknown network or a setting out of range.
    """

    def __init__(
        self,
        network: str = "cancernet",
        network_arguments: NetworkArguments | None = None,
        classes: Literal[1, 2] = 2,
        image_size: int = 50,
        batch_norm_momentum: float = 0.99,
        measure_batch_norm: bool = False,
        optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008 (frozen)
        schedule: ScheduleSettings = ScheduleSettings(),  # noqa: B008 (frozen)
        class_weights: ClassWeights = "none",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        dropout: float = 1.0,
        tta: bool = False,
        compile: bool | Literal["reduce-overhead"] = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        network_arguments = dict(network_arguments or {})
        # Plain values only: a checkpoint holds them and hides no code in them.
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        settings |= {"optimizer": asdict(optimizer), "schedule": asdict(schedule)}
        settings["class_weights"] = class_weights if isinstance(class_weights, str) else list(class_weights)
        self.save_hyperparameters(settings)
        self.network = create_network(network, network_arguments, image_size, classes)
        # The data module has to know what the weights have seen before it lets anything evaluate them.
        self._weights_state = None if weights is None else start_from(self.network, weights, self.description)
        set_momentum(self.network, batch_norm_momentum)
        for layer in self.network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p *= dropout
        self.optimizer, self.schedule = optimizer, schedule
        self.loss = TrainingLoss(class_weights, label_smoothing, mixup)
        self.image_size, self.tta = image_size, tta
        self.train_metrics, self.val_metrics, self.test_metrics = StageMetrics(), StageMetrics(), StageMetrics()
        self.computed: dict[str, dict[str, Any]] = {}
        self.predictions: tuple[np.ndarray, np.ndarray]
        self._outputs: list[tuple[Tensor, Tensor]] = []

    @property
    def description(self) -> dict[str, Any]:
        """The arguments that say what the network is, as a checkpoint holds them."""
        return {name: self.hparams[name] for name in NETWORK}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = None, **changes: Any) -> Self:  # type: ignore[override]
        """Build the task that a checkpoint was trained as, with its weights; nothing in the file is executed.

        Args:
            checkpoint_path: The file.
            map_location: Device of the result; the CPU where not given.
            **changes: Arguments that differ from the recorded ones. A network that belongs neither to this project nor
                to Keras has to be named.

        Raises:
            InputError: No such checkpoint, or a network that only the user may name.
        """
        content = read_checkpoint(checkpoint_path)
        network = trusted_network_config(content, changes.get("network"), "network=")
        task = cls(**{**recorded_settings(content), "weights": None, **network, **changes})
        task.load_state_dict(content["state_dict"])
        return task if map_location is None else task.to(map_location)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights as torch does; those of another network are refused by name (`InputError`)."""
        require_same_weights(state_dict, self.state_dict())
        return super().load_state_dict(state_dict, strict, assign)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Bring what a run writes: checkpoints, record, calibration and figures of a fit, results of the rest."""
        trainer = self.trainer
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return run_callbacks(trainer)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logit of IDC.

        Args:
            image: (B, 3, H, W) float in [0, 1].

        Returns:
            (B,) float32 (float64 in double precision); with two units z1 - z0, so that the probability is its sigmoid
            either way.
        """
        return idc_logit(self.network, image, self.image_size)

    def predict_logit(self, image: Tensor) -> Tensor:
        """Return the logit of IDC (B,) as it is used: with test-time augmentation the mean over eight symmetries."""
        return averaged_logit(self, image, self.tta)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch that training minimises; metrics take the larger share's labels of a mixed one."""
        image, share = self.loss.mix(batch)
        logit = self(image)
        loss = self.loss(logit, batch["label"], share)
        self.train_metrics.update(logit, batch["label"], loss)
        if batch_idx % LOSS_EVERY == 0:
            self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the validation metrics; while training, with the plain logit, which costs an eighth."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        self._evaluate(self.val_metrics, batch, (self if fitting else self.predict_logit)(batch["image"]))

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the test metrics and keep the logits with their rows; the second loader's count in no metric."""
        logit = self.predict_logit(batch["image"])
        if dataloader_idx == 0:
            self._evaluate(self.test_metrics, batch, logit)
        self._outputs.append((batch["index"], logit))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the logits, and keep them with their rows until the end."""
        logit = self.predict_logit(batch["image"])
        self._outputs.append((batch["index"], logit))
        return logit

    def _evaluate(self, metrics: StageMetrics, batch: dict[str, Any], logit: Tensor) -> None:
        """Update the metrics of a stage, without the rows that only fill a batch."""
        label = batch["label"]
        if self.trainer.world_size > 1:
            present = batch["index"] >= 0
            logit, label = logit[present], label[present]
        if len(label):
            metrics.update(logit, label, cross_entropy(logit, label))

    def on_train_epoch_end(self) -> None:
        """Log the metrics of the training part, as seen with dropout and augmentation."""
        self._log_epoch("train", self.train_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation part."""
        self._log_epoch("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test part and join the predictions of all processes."""
        self._log_epoch("test", self.test_metrics)
        self._join_predictions()

    def on_predict_epoch_end(self) -> None:
        """Join the predictions of all processes."""
        self._join_predictions()

    def _log_epoch(self, stage: str, metrics: StageMetrics) -> None:
        self.computed[stage] = values = metrics.compute()
        metrics.reset()
        scalars = {f"{stage}/{name}": value for name, value in values.items() if name not in CURVES}
        self.log_dict(scalars, sync_dist=True, prog_bar=False)
        if stage == "val":
            self.log("auroc", values["auroc"], prog_bar=True, logger=False, sync_dist=True)
            self.log("hp_metric", values["auroc"], sync_dist=True)  # shown in TensorBoard's HPARAMS tab

    def _join_predictions(self) -> None:
        rows = torch.cat([index for index, _ in self._outputs])
        logits = torch.cat([logit for _, logit in self._outputs])
        self._outputs.clear()
        # Every process holds as many rows as the others, so they stack.
        rows, logits = (cast(Tensor, self.all_gather(values)).reshape(-1) for values in (rows, logits))
        present = rows >= 0
        order = torch.argsort(rows[present])
        self.predictions = (rows[present][order].cpu().numpy(), logits[present][order].cpu().numpy())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimiser, and the schedule stepped after each update."""
        optimizer = build_optimizer(self.network, self.optimizer)
        schedule = build_schedule(optimizer, self.schedule, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Fix the class weights, which may depend on the training part."""
        weights = self.loss.class_weights
        if weights == "balanced":
            weights = self.trainer.datamodule.balanced_weights  # type: ignore[attr-defined]
        self.loss.set_class_weights(weights, self.device)

    def setup(self, stage: str) -> None:
        """Prepare memory and, where asked and possible, compiled code.

        Raises:
            InputError: Batch norm is to be synchronised on the CPU, which torch cannot do.
        """
        if stage == "fit" and self._weights_state is not None:
            self.trainer.datamodule.load_state_dict(self._weights_state)  # type: ignore[attr-defined]
        device = self.trainer.strategy.root_device
        on_cpu = device.type == "cpu"
        if on_cpu and stage == "fit":
            refuse_batch_norm_sync(self.trainer.strategy)
        if on_cpu:
            keep_freed_memory()
        if mode := self.hparams["compile"]:
            compile_network(self.network, device, None if mode is True else mode)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the network is, so that a checkpoint of another one is told apart."""
        checkpoint["cancernet"] = {"version": __version__, **self.description, "calibration": None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another network, a test of unknown cases, and a resume under other optimiser settings.

        Raises:
            InputError: Names the first difference.
        """
        if isinstance(getattr(self._trainer, "datamodule", None), IDCDataModule):
            require_data_record(checkpoint)
        require_same_network(checkpoint, self.description)
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        require_work_left(checkpoint, self.trainer.max_epochs, self.trainer.max_steps)
        require_same_optimizer(checkpoint, self.optimizer)
        # Recalibrated statistics are for use; training goes on with those that it left.
        checkpoint["state_dict"] = checkpoint["state_dict"] | checkpoint["cancernet"].get("trained_statistics", {})
