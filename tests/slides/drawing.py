"""Small slides and models for the tests: rosy tissue on glass, tiled pyramids, a network that was never trained."""

import random
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import tifffile
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

from cancernet.data.training_record import TrainingRecord
from cancernet.model.fused.batch_norm import BatchNorm
from cancernet.training.task import ClassificationTask

THRESHOLD, TEMPERATURE = 0.45, 1.7


def write_checkpoint(path: Path, stains: float = 0.0, synthetic: bool = False, calibrated: bool = True, **network):
    """Write a checkpoint of a small network whose logits differ from patch to patch."""
    random.seed(0)  # which Keras' initialisers draw from
    torch.manual_seed(0)
    task = ClassificationTask(**{"network": "compact", **network})
    for module in task.network.modules():
        if isinstance(module, BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.02, 0.06)
    content: dict[str, Any] = {
        **{"pytorch-lightning_version": lightning.__version__, "epoch": 0, "global_step": 0},
        "state_dict": task.state_dict(),
        "IDCDataModule": {
            "arguments": {"stain_normalization": stains},
            "description": {"name": "colours", "synthetic": synthetic},
            "exposure": TrainingRecord.unknown().state(),
        },
    }
    task.on_save_checkpoint(content)
    if calibrated:
        content["cancernet"]["calibration"] = {"temperature": TEMPERATURE, "threshold": THRESHOLD}
    torch.save(content, path)
    return path


def draw_tissue(height: int = 300, width: int = 400, seed: int = 0, hole: bool = True) -> np.ndarray:
    """Draw an ellipse of rosy noise, with a gap in it, on glass."""
    noise = np.random.default_rng(seed)
    picture = np.clip(noise.normal(240, 2, (height, width, 1)), 0, 255).repeat(3, axis=2)
    y, x = np.ogrid[:height, :width]
    inside = ((y - height / 2) / (0.4 * height)) ** 2 + ((x - width / 2) / (0.4 * width)) ** 2 < 1
    if hole:
        inside &= np.hypot(y - height / 2, x - width / 2) > min(height, width) / 6
    picture[inside] = np.clip(noise.normal((190, 100, 170), 20, (height, width, 3)), 0, 255)[inside]
    return picture.astype(np.uint8)


def write_pyramid(path: Path, pixels: np.ndarray, mpp: float | None = 4.0, levels: int = 2, **options) -> Path:
    """Write a tiled TIFF without loss, each level half as fine as the one before."""
    settings: dict[str, Any] = {
        "tile": (64, 64),
        "photometric": "rgb",
        "compression": "zlib",
        "metadata": None,
        **options,
    }
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            step = 2**level
            scale: dict[str, Any] = (
                {} if mpp is None else {"resolution": (10_000 / mpp / step,) * 2, "resolutionunit": "CENTIMETER"}
            )
            file.write(np.ascontiguousarray(pixels[::step, ::step]), subfiletype=int(level > 0), **scale, **settings)
    return path


def write_dicom(path: Path, pixels: np.ndarray, series: str, mpp: float, tile: int = 128) -> Path:
    """Write one level of a slide as DICOM, its pixels as they are."""
    height, width = pixels.shape[:2]
    down, across = -(-height // tile), -(-width // tile)
    padded = np.pad(pixels, ((0, down * tile - height), (0, across * tile - width), (0, 0)), mode="edge")
    frames = padded.reshape(down, tile, across, tile, 3).swapaxes(1, 2)
    scale, shared, file = Dataset(), Dataset(), Dataset()
    scale.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared.PixelMeasuresSequence = [scale]
    file.SharedFunctionalGroupsSequence = [shared]
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    file.SOPInstanceUID, file.SeriesInstanceUID = generate_uid(), series
    file.Modality, file.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    file.Rows = file.Columns = tile
    file.TotalPixelMatrixRows, file.TotalPixelMatrixColumns, file.NumberOfFrames = height, width, down * across
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.DimensionOrganizationType, file.TotalPixelMatrixFocalPlanes, file.NumberOfOpticalPaths = "TILED_FULL", 1, 1
    file.PixelData = frames.tobytes()
    file.save_as(path, enforce_file_format=True)
    return path
