"""The page itself, in Gradio: components, what happens on a click, and how it is served."""

import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cancernet.app.answer import Kind, answer
from cancernet.data.store.decode import SIDE
from cancernet.data.synthetic.archive import DEFAULT_SEED
from cancernet.data.synthetic.tissue import draw_slide
from cancernet.errors import InputError
from cancernet.slides.opening import IMAGE_ENDINGS, SLIDE_ENDINGS
from cancernet.slides.predictor import Predictor

BANNER = "**Research, not for diagnosis.** Nothing on this page may guide the care of a patient."
ACTIVATION = "Where the score comes from: pink speaks for IDC, blue against it, scaled to the strongest cell"
KEPT = 600
"""Seconds after which uploads and results are deleted; when the server stops, all of them are."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Lets a browser ask nothing of any other machine, whatever Gradio's own page refers to."""
FONTS = ["system-ui", "sans-serif"]
EXAMPLE = np.s_[400:800, 400:900]
"""Part of a synthetic slide that holds tissue."""


class Policy:
    """Middleware that sends `POLICY` with every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to the answer."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self.app(scope, receive, add)


class Trial:
    """Answers of one model to one reader at a time.

    Args:
        predictor: The model.
        folder: For results and examples.
    """

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        self.predictor = predictor
        self.folder = folder

    def predict(self, upload: str | None, mpp: float | None, kind: Kind) -> tuple[Any, ...]:
        """Answer to an upload."""
        if upload is None:
            return _refusal("Give a file first: a patch, a region or a slide.")
        return self._answer(Path(upload), mpp, kind)

    def predict_example(self, kind: Kind) -> tuple[Any, ...]:
        """Answer to a synthetic image."""
        slide = draw_slide(DEFAULT_SEED, 0).image
        region = slide[EXAMPLE]
        file = self.folder / ("synthetic-patch.png" if kind == "patch" else "synthetic-region.png")
        Image.fromarray(region[:SIDE, :SIDE] if kind == "patch" else region).save(file)
        words, *rest = self._answer(file, None, kind)
        return (f"Synthetic tissue, which a program drew.\n{words}", *rest)

    def _answer(self, file: Path, mpp: float | None, kind: Kind) -> tuple[Any, ...]:
        place = self.folder / "result"
        shutil.rmtree(place, ignore_errors=True)  # Gradio has copied the last ones
        place.mkdir()
        try:
            found = answer(self.predictor, file, mpp or None, kind, place)
        except InputError as error:
            return _refusal(str(error).replace(str(file), file.name))
        geojson = found.geojson and str(found.geojson)
        return (
            found.words,
            found.picture,
            found.activation,
            gr.DownloadButton(value=str(found.table), interactive=True),
            gr.DownloadButton(value=geojson, interactive=geojson is not None),
        )


def _refusal(words: str) -> tuple[Any, ...]:
    nothing = gr.DownloadButton(value=None, interactive=False)
    return words, None, None, nothing, nothing


def build(predictor: Predictor, folder: Path) -> gr.Blocks:
    """Lay the page out."""
    trial = Trial(predictor, folder)
    with gr.Blocks(title="CancerNet", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(f"# CancerNet: try a model\n{BANNER}")
        gr.Textbox(f"{predictor.name}, threshold {predictor.threshold:.4g}", label="Model", interactive=False)
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.File(
                    label="Patch, region or slide", file_types=sorted(IMAGE_ENDINGS | SLIDE_ENDINGS), elem_id="upload"
                )
                mpp = gr.Number(0, label="Micrometres a pixel (0: as the file says)", minimum=0, elem_id="mpp")
                kind = gr.Radio(["by size", "patch", "region or slide"], value="by size", label="It shows a")
                start = gr.Button("Predict", variant="primary", elem_id="predict")
                patch = gr.Button("Example: synthetic patch", elem_id="example-patch")
                region = gr.Button("Example: synthetic region", elem_id="example-region")
            with gr.Column(scale=2):
                words = gr.Textbox(label="In words", lines=4, interactive=False, elem_id="words")
                # Without Gradio's third button, which would publish the picture.
                shown: dict[str, Any] = {"interactive": False, "buttons": ["download", "fullscreen"]}
                picture = gr.Image(label="Patch or map", elem_id="picture", **shown)
                activation = gr.Image(label=ACTIVATION, elem_id="activation", **shown)
                with gr.Row():
                    table = gr.DownloadButton("Probabilities (CSV)", interactive=False, elem_id="csv")
                    geojson = gr.DownloadButton("Map for QuPath (GeoJSON)", interactive=False, elem_id="geojson")
        outputs = [words, picture, activation, table, geojson]
        private: dict[str, Any] = {"outputs": outputs, "api_visibility": "private", "concurrency_id": "model"}
        start.click(trial.predict, [upload, mpp, kind], **private)
        patch.click(lambda: trial.predict_example("patch"), **private)
        region.click(lambda: trial.predict_example("region or slide"), **private)
    return page


def listen(page: gr.Blocks, host: str, port: int, upload_limit: int) -> str:
    """Serve the page in the background.

    Args:
        page: As `build` makes it.
        host: Name or address to listen on.
        port: To listen on.
        upload_limit: Largest upload in megabytes.

    Returns:
        Its address.

    Raises:
        InputError: Host and port cannot be listened on.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            max_file_size=upload_limit * 1_000_000,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            theme=gr.themes.Base(font=FONTS, font_mono=["monospace"]),
            app_kwargs={"middleware": [Middleware(Policy)]},
        )
    except OSError as error:
        raise InputError(f"serve: cannot listen on {host}:{port}, perhaps it is taken; give another --port") from error
    return address
