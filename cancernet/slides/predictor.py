"""A trained model for use: images in; logits, probabilities and calls out."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cancernet.checkpoints import read_checkpoint
from cancernet.data.augment import scale_and_augment
from cancernet.errors import InputError
from cancernet.evaluation.calibration import apply_temperature, sigmoid
from cancernet.pretrained import INCLUDED, locate
from cancernet.slides.images import ImageLike, to_patches
from cancernet.training.acceleration import keep_freed_memory
from cancernet.training.checkpoints import data_state, recorded_calibration
from cancernet.training.inference import TrainedNetwork

if TYPE_CHECKING:
    from cancernet.model.fused import keras
    from cancernet.slides.tiles import Stride
    from cancernet.slides.tissue_map import TissueMap

CPU_BATCH, GPU_BATCH = 32, 1024
"""Patches at a time. Each batch has this size, the last one filled up: kernels differ by batch size in the last digit,
so a patch's logit would otherwise depend on how many are with it."""

log = logging.getLogger("cancernet")


@dataclass(frozen=True)
class Predictions:
    """What a model says of N patches.

    Attributes:
        logit: (N,) float32 log-odds of IDC.
        probability: (N,) float64 in [0, 1]: the sigmoid of the logit.
        calibrated: (N,) float64 probability at the temperature of the validation part; NaN without calibration.
        call: (N,) bool, whether a patch is called IDC: its probability is at least the threshold.
        threshold: Chosen on the validation part, 0.5 without calibration; of `probability`, not of `calibrated`.
        notes: What was assumed, a sentence each.
    """

    logit: NDArray[np.float32]
    probability: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    call: NDArray[np.bool_]
    threshold: float
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.logit)

    @property
    def table(self) -> pd.DataFrame:
        """One row a patch: logit, probability, probability_calibrated, call (1 IDC)."""
        columns = {"logit": self.logit, "probability": self.probability, "probability_calibrated": self.calibrated}
        return pd.DataFrame(columns).assign(call=self.call.astype(np.int8))


class Predictor:
    """A trained model for use on patches, regions and slides; `cancernet.load` makes it of a checkpoint.

    Args:
        trained: The network.
        content: The checkpoint's content, for calibration and stain normalisation.
        name: The checkpoint's name.
        device: Where the network runs.

    Attributes:
        trained: The network on its device; it takes RGB in [0, 1] as (B, 3, 50, 50) and returns logits (B,).
        threshold: IDC is called where the probability is at least this; 0.5 where `calibration` is None.
        temperature: Logits are divided by it to calibrate; None without calibration.
        stain_normalization: Share, 0 to 1, of the way from the measured stains to the reference.
        synthetic: Whether the model was trained on synthetic tissue.
    """

    def __init__(self, trained: TrainedNetwork, content: dict[str, Any], name: str, device: torch.device) -> None:
        calibration, state = recorded_calibration(content), data_state(content)
        self.trained = trained.to(device)
        self.name = name
        self.device = device
        self.threshold = 0.5 if calibration is None else float(calibration["threshold"])
        self.temperature = None if calibration is None else float(calibration["temperature"])
        self.stain_normalization = float(state.get("arguments", {}).get("stain_normalization", 0.0))
        self.synthetic = bool(state.get("description", {}).get("synthetic", False))
        self.batch_size = CPU_BATCH if device.type == "cpu" else GPU_BATCH
        # A core a batch is twice as fast as all cores on each layer; and last digits depend on the cores of a layer.
        # Layers run by Keras share state between threads.
        self._threads = (
            ThreadPoolExecutor(torch.get_num_threads(), "predict", torch.set_num_threads, (1,))
            if device.type == "cpu" and torch.get_num_threads() > 1 and not trained.network.keras_calls
            else None
        )

    def __repr__(self) -> str:
        return f"Predictor({self.name!r}, {self.trained.name}, threshold {self.threshold:.4g})"

    @property
    def keras_model(self) -> "keras.Model":
        """The Keras model, on the same weights; it takes RGB in [0, 1] and returns uncalibrated probabilities."""
        return self.trained.network.keras_model

    def predict(
        self, images: ImageLike | Sequence[ImageLike] | NDArray[np.uint8], mpp: float | None = None
    ) -> Predictions:
        """Predict patches of tissue.

        Args:
            images: uint8 (N, H, W, 3), RGB, or a list of arrays (H, W, 3), Pillow images and files; a single one too.
            mpp: Micrometres a pixel, where known; the network sees 50 x 50 pixels at 4 micrometres.

        Returns:
            One entry a patch. What was assumed is in its notes, and logged.

        Raises:
            InputError: Something cannot be read, is smaller than half a patch, or is a region.
        """
        if mpp is not None and not mpp > 0:
            raise InputError(f"mpp: expected micrometres a pixel above 0, got {mpp}")
        single = isinstance(images, str | Path) or (hasattr(images, "ndim") and images.ndim == 3)
        several = [images] if single or not hasattr(images, "__len__") else images
        patches, notes = to_patches(several, mpp)  # type: ignore[arg-type]
        if self.stain_normalization and len(patches):
            notes.append(
                "stains were left as they are: this model normalises them by what it measures on a whole case, which "
                "single patches do not show (the reference was used)"
            )
        for note in notes:
            log.warning(note)
        return self.interpret(self.logits(patches), notes)

    def map(
        self, image: ImageLike, mpp: float | None = None, stride: "Stride" = 50, tissue: bool = True
    ) -> "TissueMap":
        """Predict a region or a whole slide tile by tile (see `cancernet.slides.mapping.map_image`)."""
        from cancernet.slides.mapping import map_image

        return map_image(self, image, mpp, stride, tissue)

    def interpret(self, logit: NDArray[np.float32], notes: Sequence[str] = ()) -> Predictions:
        """Turn logits (N,) into probabilities and calls."""
        # Rounded once, from float64: a sigmoid in single precision ties neighbouring logits.
        probability = sigmoid(logit)
        undefined = np.full(len(logit), np.nan)
        calibrated = undefined if self.temperature is None else apply_temperature(logit, self.temperature)
        return Predictions(logit, probability, calibrated, probability >= self.threshold, self.threshold, tuple(notes))

    def logits(self, patches: NDArray[np.uint8], stains: Tensor | None = None) -> NDArray[np.float32]:
        """Run patches through the network, with test-time augmentation where the model has it.

        Args:
            patches: uint8 (N, 50, 50, 3), RGB.
            stains: (2, 3) mean and deviation of the tissue's optical density (see `data.stains`); None leaves stains.

        Returns:
            (N,) float32 logits of IDC, each independent of the other patches.
        """
        size = self.batch_size
        logits = np.empty(len(patches), np.float32)
        statistics = None if stains is None else stains.to(self.device).expand(size, 2, 3)

        def run(start: int) -> None:
            given = patches[start : start + size]
            batch = np.zeros((size, *patches.shape[1:]), np.uint8)
            batch[: len(given)] = given
            with torch.inference_mode():
                pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device)
                image = scale_and_augment(pixels, (), 0, statistics)
                logits[start : start + size] = self.trained(image)[: len(given)].cpu().numpy()

        starts = range(0, len(patches), size)
        if self._threads is None:
            for start in starts:
                run(start)
        else:
            list(self._threads.map(run, starts))
        return logits


def load(checkpoint: str | Path = INCLUDED, network: str | None = None) -> Predictor:
    """Load a checkpoint that `fit` wrote, to predict patches and map regions and slides.

    On the CPU of Linux the process then keeps the memory that it frees, which makes the network faster by a third.

    Args:
        checkpoint: The file, such as .../checkpoints/best.ckpt; nothing in it is executed. The included model where
            not given.
        network: The network that the checkpoint names, if it belongs neither to this project nor to Keras: its code is
            then run.

    Raises:
        InputError: No such checkpoint, or a network that only the user may name.

    Examples:
        >>> import cancernet
        >>> predictor = cancernet.load()
        >>> found = predictor.predict(np.full((2, 50, 50, 3), 200, np.uint8))
        >>> found.probability.shape, found.call.dtype, found.threshold
        ((2,), dtype('bool'), ...)
        >>> predictor.map(np.full((150, 120, 3), 200, np.uint8), tissue=False).probability.shape
        (9,)
    """
    content = read_checkpoint(checkpoint)
    trained = TrainedNetwork(content, network)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type == "cpu":
        keep_freed_memory()
    return Predictor(trained, content, locate(checkpoint).name, device)
