"""Lightning's access to checkpoint files."""

from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from cancernet.checkpoints import read_checkpoint, replace_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's access to checkpoint files: safe to read, written whole.

    Lightning's own writes to the folder for temporary files and moves from there, which across file systems is a copy
    that an interruption cuts short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint atomically, and its folder where there is none."""
        replace_checkpoint(path, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint safely."""
        return read_checkpoint(path)
