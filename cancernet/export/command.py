"""`cancernet export`: write a checkpoint's model for another runtime, and keep the file only if both agree."""

import io
import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from cancernet.checkpoints import read_checkpoint
from cancernet.data.batches import evenly_spaced
from cancernet.data.store.find import find_store
from cancernet.data.synthetic.archive import DEFAULT_SEED, PATCH, cut_patches
from cancernet.data.synthetic.tissue import draw_slide
from cancernet.errors import InputError
from cancernet.evaluation.calibration import apply_temperature
from cancernet.export.check import BATCH, TOLERANCE, Agreement, check
from cancernet.export.metadata import describe
from cancernet.export.writers import WRITERS, Subject, Writer, build_plain
from cancernet.files import workplace
from cancernet.pretrained import is_included, locate
from cancernet.training.checkpoints import network_config, trusted_network_config
from cancernet.training.task import ClassificationTask

Format = Literal["keras", "weights", "onnx", "torch", "safetensors", "wsinfer"]


def export(
    checkpoint: Path,
    format: Format = "keras",
    output: Path | None = None,
    input: Literal["uint8", "float32"] = "uint8",
    root: str | None = None,
    patches: int = 64,
    cache: str | None = None,
    unchecked: bool = False,
    network: str | None = None,
) -> None:
    """Write a checkpoint's model for another runtime: patches of 0 to 255 in, calibrated probabilities out.

    The file is opened in its runtime, in a process without cancernet (safetensors: loaded into a fresh network), and
    has to give the same probabilities; otherwise it is removed. A file of the same name is replaced.

    Args:
        checkpoint: The file, such as .../checkpoints/best.ckpt, or the name of the included model.
        format: `keras` (plain Keras under TensorFlow, JAX and torch), `weights` (.weights.h5 of the plain network,
            which takes [0, 1] and is not calibrated), `onnx`, `torch` (for torch.export.load), `safetensors` (the
            weights; scaling and temperature in the metadata) or `wsinfer` (a folder for `wsinfer run` and QuPath's
            WSInfer extension).
        output: The file to write, for `wsinfer` the folder; by default next to the checkpoint.
        input: Type of the patches, (batch, height, width, 3), RGB from 0 to 255.
        root: Data whose patches are compared; synthetic tissue by default.
        patches: Number of patches to compare.
        cache: Folder for packed stores; by default the user's cache folder.
        unchecked: Write the file even if its runtime is not installed. An installed one still has to agree.
        network: The network that the checkpoint names, if it belongs neither to this project nor to Keras: its code is
            then run.

    Raises:
        InputError: No such checkpoint or data, a missing package, or an export that does not agree.
    """
    writer = WRITERS[format]
    checkpoint = locate(checkpoint)
    if output is None:  # next to the checkpoint; never into the package
        output = Path(checkpoint.name) if is_included(checkpoint) else checkpoint
        output = output.with_suffix(writer.suffix)
    if not writer.folder and not output.name.endswith(writer.suffix):
        raise InputError(f"--output {output}: a file of format {format} ends in {writer.suffix}")
    if output.exists() and output.is_dir() != writer.folder:
        there, wanted = ("a folder", "file") if output.is_dir() else ("a file", "folder")
        raise InputError(f"--output {output}: there is {there}; name a {wanted} for format {format}")
    if patches < 1:
        raise InputError(f"--patches: expected 1 or more, got {patches}")
    if missing := [package for package in writer.packages if find_spec(package) is None]:
        raise InputError(f"export: {', '.join(missing)} is not installed: pip install 'cancernet[export]'")
    content = read_checkpoint(checkpoint)
    recorded = trusted_network_config(content, network)
    _refuse_symmetries(content)
    task = ClassificationTask(**recorded)
    task.load_state_dict(content["state_dict"])
    subject = Subject(task.eval().network, describe(checkpoint, content, format, input))
    images = take_patches(root, patches, task.image_size, cache)
    expected = expect(task, images, 1.0 if format == "weights" else subject.temperature)
    with workplace(output) as place:
        file = place / output.name
        _write(writer, subject, file)
        if format == "weights":
            Path(f"{file}.json").write_text(build_plain(subject).to_json(), encoding="utf-8")
        _require_agreement(check(format, file, images, expected), format, len(images), unchecked)
        _publish(file, output)
    if not subject.metadata["calibrated"]:
        print("The checkpoint holds no calibration: the temperature is 1 and the threshold 0.5")
    if subject.metadata["input"]["stain_normalization"] is not None:
        print("The model expects patches whose stains were normalised over their case, as its metadata describe")
        if format == "wsinfer":
            print("WSInfer leaves stains as they are: expect more errors on slides stained unlike that reference")
    print(output)


def _publish(file: Path, output: Path) -> None:
    """Move what was written to its place: a file, or the files of a folder, which may exist."""
    if not file.is_dir():
        file.replace(output)
        return
    output.mkdir(exist_ok=True)
    for member in sorted(file.iterdir()):
        member.replace(output / member.name)


def _refuse_symmetries(content: dict[str, Any]) -> None:
    """Refuse a model whose output takes more than one pass over a patch."""
    if network_config(content)["tta"]:
        raise InputError(
            "export: this model averages over eight symmetries, which an exported one does not; run "
            "`cancernet calibrate CKPT --tta false` first"
        )


def _write(writer: Writer, subject: Subject, file: Path) -> None:
    try:
        writer.write(subject, file)
    except Exception as error:
        if isinstance(error, OSError) or not subject.network.keras_calls:
            raise
        # Keras' code or that of a user's layer may do what no file can hold.
        names = ", ".join(subject.network.keras_calls)
        raise InputError(
            f"export: the network cannot be written as {writer.suffix}, perhaps because of the layers {names}, which "
            f"run through Keras ({type(error).__name__}); use another format"
        ) from error


def take_patches(root: str | None, count: int, size: int, cache: str | None) -> np.ndarray:
    """Return (count, size, size, 3) uint8 patches, spread over the data, or synthetic ones where `root` is None.

    Raises:
        InputError: No such data.
    """
    images = _synthetic_patches(count) if root is None else find_store(root, cache).images
    rows = evenly_spaced(len(images), count)
    chosen = np.asarray(images[rows])
    if chosen.shape[1] == size:
        return chosen
    return np.stack([np.asarray(Image.fromarray(patch).resize((size, size))) for patch in chosen])


def _synthetic_patches(least: int) -> np.ndarray:
    """Return at least this many synthetic patches of tissue, (N, 50, 50, 3) uint8."""
    patches: list[np.ndarray] = []
    for case in itertools.count():
        slide = draw_slide(DEFAULT_SEED, case)
        cut = [np.asarray(Image.open(io.BytesIO(content))) for _, content in cut_patches(slide, str(case))]
        patches += [patch for patch in cut if patch.shape == (PATCH, PATCH, 3)]  # smaller at the slide's border
        if len(patches) >= least:
            break
    return np.stack(patches)


def expect(task: ClassificationTask, images: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probability of IDC from the fused network, (N,) float64, for images (N, H, W, 3) uint8."""
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)
            logits.append(task(batch.float() / 255))
    return apply_temperature(torch.cat(logits).numpy(), temperature)


def _require_agreement(found: list[Agreement], form: str, patches: int, unchecked: bool) -> None:
    """Print the difference of each runtime, and refuse a file that does not agree or was not checked."""
    for agreement in found:
        if agreement.difference is None:
            print(f"{agreement.runtime}: not installed, not checked")
        else:
            print(f"{agreement.runtime}: largest difference {agreement.difference:.1e} over {patches:,} patches")
    differences = [agreement.difference for agreement in found if agreement.difference is not None]
    if not differences and not unchecked:
        names = ", ".join(agreement.runtime for agreement in found)
        raise InputError(
            f"export: {names} is not installed, so the {form} file cannot be checked and was not written; "
            "install it (pip install 'cancernet[export]'), or give --unchecked"
        )
    if differences and max(differences) > TOLERANCE:
        raise InputError(
            f"export: the {form} file differs by {max(differences):.1e} in probability, more than {TOLERANCE:.0e}; "
            "it was removed"
        )
