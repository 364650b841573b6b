"""Where results come from: source and parts of the data, the proof that nothing leaked, machine and versions."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer

import cancernet
from cancernet.data.assignment import OUTSIDE, PARTS
from cancernet.data.datamodule import IDCDataModule
from cancernet.evaluation.results import DataFlow, Environment, LeakProof, PartSummary, Source

PACKAGES = (
    "torch",
    "torchvision",
    "keras",
    "lightning",
    "torchmetrics",
    "numpy",
    "pandas",
    "scikit-learn",
    "pillow",
)
"""Packages whose version can change a figure."""


def describe_data_flow(data: IDCDataModule) -> DataFlow:
    """Describe the source, what was left out and what each part holds."""
    manifest, index = data.store.manifest, data.store.index
    parts = []
    for part in (*PARTS, OUTSIDE):
        members = index.iloc[data.split.rows(part)]
        idc = int(members["label"].sum())
        counts = {"patches": len(members), "cases": int(members["case"].nunique()), "idc": idc}
        prevalence = idc / len(members) if len(members) else None
        parts.append(PartSummary.model_validate({"part": part, **counts, "prevalence": prevalence}))
    audit = dict(manifest["audit"])
    rejects = audit.pop("rejects", {})
    return DataFlow(
        source=Source(**manifest["source"], audit=audit),
        parts=parts,
        left_out=len(data.split.left_out),
        rejects=rejects,
        absent=list(data.split.absent),
    )


def prove_disjoint(data: IDCDataModule, tested: np.ndarray) -> LeakProof | None:
    """Count what two of training, validation and the tested patches share, the first two as the model has seen them.

    There is no proof, None, for a model whose training record is unknown.

    Args:
        data: Set up, with the checkpoint's training record loaded.
        tested: (M,) store rows.
    """
    seen = data.exposure if data.earlier is None else data.earlier
    if not seen.known:
        return None
    shared = {f"{name}_in_two_parts": count for name, count in seen.overlap(data.store.index, tested).items()}
    return LeakProof.model_validate({"unit": seen.unit, **shared, "left_out": len(data.split.left_out)})


def describe_environment(trainer: Trainer, started: float) -> Environment:
    """Describe when, how long and on what a test ran.

    Args:
        trainer: Knows the devices.
        started: `time.monotonic()` at the start.
    """
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Environment(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
        commit=_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        processor=f"{_processor()}, {os.cpu_count()} cores",
        devices=[name] * trainer.world_size,
        versions={"cancernet": cancernet.__version__, **{package: _version(package) for package in PACKAGES}},
    )


def _commit() -> str | None:
    """Return the commit of the checkout that this program runs from; None where it is installed without one."""
    checkout = Path(cancernet.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None
    try:
        command = ["git", "rev-parse", "HEAD"]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
