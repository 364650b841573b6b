"""`cancernet serve`: a page in the browser to try a model."""

import os
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

from cancernet.errors import InputError
from cancernet.pretrained import INCLUDED

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NEEDED = ("gradio", "shapely", "tifffile")
PRIVATE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Settings that Gradio and what it brings read when they are imported: nothing is reported to anyone."""


def serve(
    checkpoint: Path = Path(INCLUDED),
    host: str = "127.0.0.1",
    port: int = 7860,
    upload_limit: int = 1000,
    network: str | None = None,
) -> None:
    """Serve a page in the browser to try a model on a patch, a region or a slide.

    Only this machine can reach it unless --host says otherwise; nothing leaves the machine, and nothing is kept.

    Args:
        checkpoint: The file, such as .../checkpoints/best.ckpt; the included model where not given.
        host: Address to listen on; 0.0.0.0 lets every machine of the network in, without a password.
        port: To listen on.
        upload_limit: Largest upload in megabytes.
        network: The network that the checkpoint names, if it belongs neither to this project nor to Keras: its code is
            then run.

    Raises:
        InputError: No such checkpoint, a missing package, a limit below 1, or the port is taken.
    """
    if upload_limit < 1:
        raise InputError(f"--upload_limit: expected 1 megabyte or more, got {upload_limit}")
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        raise InputError(f"serve: {', '.join(missing)} is not installed: pip install 'cancernet[app]'")
    with tempfile.TemporaryDirectory(prefix="cancernet-") as folder:
        # Uploads on their way, uploads, and results: all of it goes with the folder.
        os.environ |= PRIVATE | {"GRADIO_TEMP_DIR": folder}
        tempfile.tempdir = folder
        from cancernet.app.page import build, listen
        from cancernet.slides.predictor import load

        page = build(load(checkpoint, network), Path(folder))
        address = listen(page, host, port, upload_limit)
        if host not in LOOPBACK:
            print(f"Every machine that reaches {host} can use this page: there is no password")
        print(f"Open {address} in a browser; end with Ctrl+C", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        page.block_thread()
