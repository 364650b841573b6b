"""The LightningModule: one step for all stages, over a Keras network that runs as fused torch calls."""

from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from cancernet import __version__
from cancernet.data.augment import symmetries
from cancernet.errors import InputError
from cancernet.model.registry import NetworkArguments, create_network
from cancernet.training.acceleration import compile_network, keep_freed_memory
from cancernet.training.batch_norm import set_momentum
from cancernet.training.checkpoints import described_network
from cancernet.training.conversion import start_from
from cancernet.training.loss import ClassWeights, Objective, cross_entropy
from cancernet.training.metrics import CURVES, build_metrics
from cancernet.training.optimization import OptimizerName, ScheduleName, build_optimizer, build_schedule

LOSS_EVERY = 10
"""The progress bar shows the loss of every tenth batch: to ask for it is to wait for the device."""


class ClassificationTask(LightningModule):
    """Train and judge a network that tells IDC (1) from benign (0) patches.

    Args:
        network: `cancernet`, the network of 2019; `compact`, smaller and without its large matrix; or the dotted path
            of what returns a Keras model, such as keras.applications.MobileNetV2. It sees RGB scaled to [0, 1].
        network_arguments: Keyword arguments for a network given by its path: numbers, text, lists.
        classes: 2 for two units under a softmax, as in 2019, or 1 for a single logit.
        image_size: Side of the network's input in pixels; patches of another size are resized on the device.
        batch_norm_momentum: How much of the moving statistics each batch leaves in place (Keras' sense; 0.99 is its
            default), 0 to 1.
        measure_batch_norm: When training has ended, measure the statistics of batch norm anew on training patches, as
            they will be in use: without dropout and augmentation.
        optimizer: `adagrad` (the 2019 rule), `adamw` or `sgd`.
        learning_rate: Peak learning rate.
        weight_decay: For `adamw` and `sgd`; on kernels only.
        momentum: For `sgd`.
        learning_rate_decay: For `adagrad`, per update.
        initial_accumulator: For `adagrad`: 0 is Keras' of 2019, 0.1 that of 2020.
        schedule: `constant`, or `cosine` down to 0 over the run.
        warmup: Share of the run, 0 to 1, in which the learning rate rises.
        class_weights: `none`, `balanced` (largest class count / class count, as in 2019) or two numbers, benign first;
            in the training loss only.
        label_smoothing: Share of the label, 0 to 1, spread evenly over both classes; in the training loss only.
        mixup: Train on pairs of patches, mixed in shares drawn from Beta(mixup, mixup); 0 does not (Zhang et al. 2018).
        dropout: Factor on the network's dropout rates; 0 drops nothing.
        test_time_symmetries: Average the logit over the eight symmetries of the square wherever the trained network is
            used; calibration belongs to it, so `calibrate` changes it, not `test`.
        compile: Run the network through torch.compile; the first batches then take a minute longer. `reduce-overhead`
            also replays CUDA graphs, on a GPU.
        weights: Start from these instead of random ones: a file that Keras or tf.keras saved, or a checkpoint of ours.
    """

    def __init__(
        self,
        network: str = "cancernet",
        network_arguments: NetworkArguments | None = None,
        classes: Literal[1, 2] = 2,
        image_size: int = 50,
        batch_norm_momentum: float = 0.99,
        measure_batch_norm: bool = False,
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        learning_rate_decay: float = 0.0,
        initial_accumulator: float = 0.0,
        schedule: ScheduleName = "constant",
        warmup: float = 0.0,
        class_weights: ClassWeights = "none",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        dropout: float = 1.0,
        test_time_symmetries: bool = False,
        compile: bool | Literal["reduce-overhead"] = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        arguments = dict(network_arguments or {})
        self.description: dict[str, Any] = {
            "network": network,
            "network_arguments": arguments,
            "classes": classes,
            "image_size": image_size,
            "test_time_symmetries": test_time_symmetries,
        }
        self.image_size = image_size
        self.network = create_network(network, arguments, image_size, classes)
        # What the weights have seen, the data module has to know before it lets anything judge them.
        self._earlier = None if weights is None else start_from(self.network, weights, self.description)
        set_momentum(self.network, batch_norm_momentum)
        for layer in self.network.modules():
            if isinstance(layer, nn.Dropout):
                layer.p *= dropout
        self.optimizer: dict[str, Any] = {
            "name": optimizer,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "learning_rate_decay": learning_rate_decay,
            "initial_accumulator": initial_accumulator,
        }
        self.measure_batch_norm = measure_batch_norm
        self.schedule: ScheduleName = schedule
        self.warmup = warmup
        self.objective = Objective(class_weights, label_smoothing, mixup)
        self.test_time_symmetries = test_time_symmetries
        self.compile_network = compile
        # A ModuleDict cannot hold the key "train", which is the name of a method, hence the underscore.
        self.metrics = nn.ModuleDict({stage: build_metrics() for stage in ("train_", "val_", "test_")})
        self.losses = nn.ModuleDict({stage: MeanMetric() for stage in ("train_", "val_", "test_")})
        self.computed: dict[str, dict[str, Any]] = {}
        self.predictions: tuple[np.ndarray, np.ndarray]
        self._outputs: list[tuple[Tensor, Tensor]] = []

    def forward(self, image: Tensor) -> Tensor:
        """Return the logit of IDC.

        Args:
            image: (B, 3, H, W) float in [0, 1].

        Returns:
            (B,) float32 (float64 in double precision); with two units z1 - z0, so that the probability is its sigmoid
            either way.
        """
        if image.shape[-1] != self.image_size:
            image = F.interpolate(image, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        logits = self.network(image)
        if logits.dtype != torch.float64:
            logits = logits.float()
        # The copy: a replayed CUDA graph writes its next output over this one.
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0].clone()

    def predict_logit(self, image: Tensor) -> Tensor:
        """Return the logit of IDC as it is to be used: averaged over the symmetries of the square where so chosen.

        Args:
            image: (B, 3, H, W) float in [0, 1].

        Returns:
            (B,) float32.
        """
        if not self.test_time_symmetries:
            return self(image)
        return torch.stack([self(turned) for turned in symmetries(image)]).mean(dim=0)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch that training minimises; metrics take the larger share's labels of a mixed one."""
        image, share = self.objective.mix(batch)
        logit = self(image)
        loss = self.objective(logit, batch["label"], share)
        self._update("train", logit, batch["label"], loss)
        if batch_idx % LOSS_EVERY == 0:
            self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the validation metrics; while training, with the plain logit, which costs an eighth."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        self._judge("val", batch, (self if fitting else self.predict_logit)(batch["image"]))

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the test metrics and keep the logits with their rows; the second loader's cases are not judged."""
        logit = self.predict_logit(batch["image"])
        if dataloader_idx == 0:
            self._judge("test", batch, logit)
        self._outputs.append((batch["index"], logit))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep the logits with their rows until the end."""
        self._outputs.append((batch["index"], self.predict_logit(batch["image"])))

    def _judge(self, stage: str, batch: dict[str, Any], logit: Tensor) -> None:
        """Update the metrics of a stage that judges, with the patches that are there."""
        label = batch["label"]
        if self.trainer.world_size > 1:
            present = batch["index"] >= 0
            logit, label = logit[present], label[present]
        if len(label):
            self._update(stage, logit, label, cross_entropy(logit, label))

    def _update(self, stage: str, logit: Tensor, label: Tensor, loss: Tensor) -> None:
        self._metrics_of(stage).update(probability_of(logit.detach()), label)
        self._loss_of(stage).update(loss.detach(), len(label))

    def _metrics_of(self, stage: str) -> MetricCollection:
        return cast(MetricCollection, self.metrics[f"{stage}_"])

    def _loss_of(self, stage: str) -> MeanMetric:
        return cast(MeanMetric, self.losses[f"{stage}_"])

    def on_train_epoch_end(self) -> None:
        """Log the metrics of the training part, as seen with dropout and augmentation."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation part."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test part and join the predictions of all processes."""
        self._log_epoch("test")
        self._join_predictions()

    def on_predict_epoch_end(self) -> None:
        """Join the predictions of all processes."""
        self._join_predictions()

    def _log_epoch(self, stage: str) -> None:
        values = self._metrics_of(stage).compute()
        values["loss"] = self._loss_of(stage).compute()
        scalars = {f"{stage}/{name}": value for name, value in values.items() if name not in CURVES}
        self.log_dict(scalars, sync_dist=True, prog_bar=False)
        if stage == "val":
            self.log("auroc", values["auroc"], prog_bar=True, logger=False, sync_dist=True)
        self.computed[stage] = values
        self._metrics_of(stage).reset()
        self._loss_of(stage).reset()

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
        optimizer = build_optimizer(self.network, **self.optimizer)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(optimizer, self.schedule, self.warmup, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Fix the class weights, which may depend on the training part."""
        self.objective.settle(lambda: self.trainer.datamodule.balanced_weights, self.device)  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Prepare memory and, where asked and possible, compiled code.

        Raises:
            InputError: Batch norm is to be synchronised on the CPU, which torch cannot do.
        """
        if stage == "fit" and self._earlier is not None:
            self.trainer.datamodule.load_state_dict(self._earlier)  # type: ignore[attr-defined]
        device = self.trainer.strategy.root_device
        on_cpu = device.type == "cpu"
        # Lightning has no public word for it, and DDP would refuse with a traceback right after this hook.
        if on_cpu and stage == "fit" and getattr(self.trainer.strategy, "_layer_sync", None) is not None:
            raise InputError(
                "trainer.sync_batchnorm: torch synchronises batch norm on GPUs only; leave it out on the CPU"
            )
        if on_cpu:
            keep_freed_memory()
        if self.compile_network:
            compile_network(self.network, device, None if self.compile_network is True else self.compile_network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the network is, so that a checkpoint of another one is told apart."""
        checkpoint["cancernet"] = {"version": __version__, **self.description, "calibration": None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network before any weight is read.

        Raises:
            InputError: Names the first difference.
        """
        theirs = described_network(checkpoint)
        for name, ours in self.description.items():
            if theirs[name] != ours:
                other = "calibrate the checkpoint" if name == "test_time_symmetries" else "another checkpoint"
                raise InputError(
                    f"the checkpoint's network has {name} {theirs[name]!r}, this one {ours!r}; "
                    f"give --model.{name} {theirs[name]!r}, or {other}"
                )


def probability_of(logit: Tensor) -> Tensor:
    """Return the probability of IDC in single precision, rounded once: exactly what the files of predictions hold.

    The sigmoid in single precision ties logits that the files keep apart, which moves the AUROC of a model whose
    probabilities lie close together. Apple's GPUs know no double precision; there it stays at that.
    """
    return torch.sigmoid(logit) if logit.device.type == "mps" else torch.sigmoid(logit.double()).float()
