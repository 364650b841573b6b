"""`cancernet export`: write a checkpoint's model for another runtime, and leave it only where it agrees with ours."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from cancernet.data.batches import evenly_spaced
from cancernet.data.store.find import find_store
from cancernet.data.synthetic.archive import DEFAULT_SEED, PATCH
from cancernet.data.synthetic.tissue import draw_slide
from cancernet.errors import InputError
from cancernet.evaluation.calibration import apply_temperature
from cancernet.exporting.checking import TOLERANCE, Agreement, check
from cancernet.exporting.metadata import describe
from cancernet.exporting.writers import WRITERS, Subject, Writer, build_plain
from cancernet.training.checkpoints import described_network, read_checkpoint, recorded_network
from cancernet.training.task import ClassificationTask

Format = Literal["keras", "weights", "onnx", "torch", "safetensors"]
BATCH = 128


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

    The file is opened in the runtime it is for, in a process without cancernet, and has to give the same probabilities;
    otherwise it is not left. A file of the same name is replaced.

    Args:
        checkpoint: The file, such as .../checkpoints/best.ckpt.
        format: `keras` (plain Keras under TensorFlow, JAX and torch), `weights` (.weights.h5 of the plain network,
            which takes [0, 1] and is not calibrated), `onnx`, `torch` (for torch.export.load) or `safetensors` (the
            weights of CancerNet; scaling and temperature in the metadata).
        output: The file to write; beside the checkpoint where not given.
        input: Type of the patches, (batch, height, width, 3), RGB from 0 to 255.
        root: Data whose patches are compared; drawn tissue where not given.
        patches: How many patches are compared.
        cache: Folder for packed stores; the user's cache folder where not given.
        unchecked: Write the file even where the runtime is not installed. One that is, still has to agree.
        network: The network that the checkpoint names, where that is neither ours nor Keras': its code is then run.

    Raises:
        InputError: No such checkpoint or data, a package that is missing, or an export that does not agree.
    """
    writer = WRITERS[format]
    output = checkpoint.with_suffix(writer.suffix) if output is None else output
    if not output.name.endswith(writer.suffix):
        raise InputError(f"--output {output}: a file of format {format} ends in {writer.suffix}")
    if patches < 1:
        raise InputError(f"--patches: expected 1 or more, got {patches}")
    writer.require()
    content = read_checkpoint(checkpoint)
    recorded = recorded_network(content, network)
    _check_form(content, format)
    task = ClassificationTask(**recorded)
    task.load_state_dict(content["state_dict"])
    subject = Subject(task.eval().network, describe(checkpoint, content, format, input))
    images = take_patches(root, patches, task.image_size, cache)
    expected = expect(task, images, 1.0 if format == "weights" else subject.temperature)
    output.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        file = place / output.name
        _write(writer, subject, file)
        if format == "weights":
            Path(f"{file}.json").write_text(build_plain(subject).to_json(), encoding="utf-8")
        _judge(check(format, file, images, expected), format, len(images), unchecked)
        file.replace(output)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if not subject.metadata["calibrated"]:
        print("The checkpoint holds no calibration: the temperature is 1 and the threshold 0.5")
    if subject.metadata["input"]["stain_normalization"] is not None:
        print("The model expects patches whose stains were normalised over their case, as its metadata describe")
    print(output)


def _check_form(content: dict[str, Any], form: Format) -> None:
    """Refuse a model that the format cannot hold, or whose answer takes more than one pass over one patch."""
    described = described_network(content)
    if form == "safetensors" and described["network"] != "cancernet":
        raise InputError(
            f"export: the network is {described['network']}, and safetensors is for CancerNet alone, which can be "
            "computed from its weights to check them; use another format"
        )
    if described["test_time_symmetries"]:
        raise InputError(
            "export: this model averages over eight symmetries, which an exported one does not; run "
            "`cancernet calibrate CKPT --test_time_symmetries false` first"
        )


def _write(writer: Writer, subject: Subject, file: Path) -> None:
    try:
        writer.write(subject, file)
    except Exception as error:
        if not subject.network.keras_calls:
            raise
        # What Keras or a layer of the user's own does is not ours to mend.
        reason = re.sub(r"\x1b\[\d+m", "", next(iter(str(error).splitlines()), type(error).__name__))
        names = ", ".join(subject.network.keras_calls)
        raise InputError(
            f"export: the network cannot be written as {writer.suffix}, perhaps because of the layers {names}, which "
            f"run through Keras ({reason}); use another format"
        ) from error


def take_patches(root: str | None, count: int, size: int, cache: str | None) -> np.ndarray:
    """Return (count, size, size, 3) uint8 patches, spread over the data, or drawn.

    Raises:
        InputError: No such data.
    """
    images = _draw_tissue(count) if root is None else find_store(root, cache).images
    rows = evenly_spaced(len(images), count)
    chosen = np.asarray(images[rows])
    if chosen.shape[1] == size:
        return chosen
    return np.stack([np.asarray(Image.fromarray(patch).resize((size, size))) for patch in chosen])


def _draw_tissue(count: int) -> np.ndarray:
    """Return at least `count` drawn patches (N, 50, 50, 3) that hold tissue."""
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < count:
        slide = draw_slide(DEFAULT_SEED, len(parts))
        height, width = slide.tissue.shape
        corners = [(top, left) for top in range(0, height - PATCH, PATCH) for left in range(0, width - PATCH, PATCH)]
        cells = [np.s_[top : top + PATCH, left : left + PATCH] for top, left in corners]
        parts.append(np.stack([slide.image[cell] for cell in cells if slide.tissue[cell].any()]))
    return np.concatenate(parts)


def expect(task: ClassificationTask, images: np.ndarray, temperature: float) -> np.ndarray:
    """Return what our own execution says: (N,) float64 probability of IDC."""
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)
            logits.append(task(batch.float() / 255))
    return apply_temperature(torch.cat(logits).numpy(), temperature)


def _judge(found: list[Agreement], form: str, count: int, unchecked: bool) -> None:
    """Print how far each runtime differs, and refuse what does not agree or was not looked at."""
    for agreement in found:
        if agreement.difference is None:
            print(f"{agreement.runtime}: not installed, not checked")
        else:
            print(f"{agreement.runtime}: largest difference {agreement.difference:.1e} over {count:,} patches")
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
            "it was not left"
        )
