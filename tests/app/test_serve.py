"""The page of `serve` in Chromium: uploads, examples, downloads, and that nothing leaves the machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import cancernet
from cancernet.app import command
from cancernet.cli import main
from tests.evaluation.test_report_browser import CHROMIUM, FLAGS
from tests.output import only_line
from tests.slides.drawing import draw_tissue, write_checkpoint

PATIENCE = 300_000
"""Milliseconds, for a machine that does other things too."""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium here, so the page was NOT tested in a browser: apt-get install -y chromium",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "last.ckpt")


@pytest.fixture(scope="module")
def server(checkpoint, tmp_path_factory):
    """A server in a process of its own, which leaves nothing behind when it ends."""
    pytest.importorskip("gradio", reason="needs Gradio in an environment of its own: scripts/test --app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, "-m", "cancernet", "serve", str(checkpoint), f"--port={port}", "--upload_limit=1"],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place)},
        text=True,
    )
    line = process.stdout.readline()
    assert line.startswith(f"Open http://127.0.0.1:{port}")
    yield f"http://127.0.0.1:{port}/"
    assert any(place.iterdir())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert list(place.iterdir()) == []


@pytest.fixture(scope="module")
def page(server):
    """The page; what it asks for and complains of is collected."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'cancernet[test]'")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page, seen = chromium.new_page(), SimpleNamespace(requests=[], complaints=[])
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.goto(server)
        page.wait_for_selector("#predict")
        yield page, seen
        chromium.close()


def words(page, part):
    page.wait_for_function("part => document.querySelector('#words textarea').value.includes(part)", arg=part)
    return page.input_value("#words textarea")


def predict(page, file, part):
    page.set_input_files("#upload input[type=file]", file)
    page.wait_for_selector(f"#upload :text('{file.stem}')")
    page.click("#predict")
    found = words(page, part)
    page.click("#upload button[aria-label='Clear'], #upload button[aria-label='Remove this file']")
    page.wait_for_selector("#upload input[type=file]", state="attached")
    return found


def download(page, name):
    with page.expect_download() as started:
        page.click(f"#{name}")
    return started.value.path().read_text(encoding="utf-8")


def without_ids(text):
    return [(feature["geometry"], feature["properties"]) for feature in json.loads(text)["features"]]


def test_a_region_gets_the_numbers_of_the_command_line(page, checkpoint, tmp_path, capsys):
    page, _ = page
    file = tmp_path / "region.png"
    Image.fromarray(draw_tissue()).save(file)
    assert main(["map", str(checkpoint), str(file), "--output", str(tmp_path / "maps")]) == 0
    said = capsys.readouterr().out.strip().splitlines()[-1].partition(": ")[2]
    assert said in predict(page, file, "tiles,")
    folder = tmp_path / "maps" / "region"
    assert download(page, "csv") == (folder / "predictions.csv").read_text(encoding="utf-8")
    geojson = (folder / "map.geojson").read_text(encoding="utf-8")
    assert without_ids(download(page, "geojson")) == without_ids(geojson)
    for name in ("picture", "activation"):
        assert page.evaluate(f"document.querySelector('#{name} img').naturalWidth") > 300


def test_a_patch_gets_the_numbers_of_python(page, checkpoint, tmp_path):
    page, _ = page
    file = tmp_path / "patch.png"
    Image.fromarray(draw_tissue(60, 60, hole=False)[5:55, 5:55]).save(file)
    expected = cancernet.load(checkpoint).predict(file)
    found = predict(page, file, "Called")
    assert f"probability of IDC {expected.probability[0]:.4f}" in found
    assert f"Calibrated probability: {expected.calibrated[0]:.4f}" in found
    assert float(download(page, "csv").splitlines()[1].split(",")[0]) == pytest.approx(float(expected.logit[0]))
    assert page.is_disabled("#geojson")


def test_what_is_no_image_gets_one_line_that_is_text(page, tmp_path):
    page, _ = page
    file = tmp_path / "<img src=x onerror=alert(1)>.png"
    file.write_text("words")
    page.set_input_files("#upload input[type=file]", file)
    page.wait_for_selector("#upload :text('onerror')")
    page.click("#predict")
    line = words(page, "whole PNG")
    assert "\n" not in line
    assert str(tmp_path.anchor) not in line.split(":")[0]
    assert page.eval_on_selector_all("img[onerror]", "all => all.length") == 0


def test_examples_can_be_clicked(page):
    page, _ = page
    page.click("#example-patch")
    assert "Synthetic tissue" in words(page, "Called")
    page.click("#example-region")
    assert "Synthetic tissue" in words(page, "tiles,")


def test_the_page_says_that_it_is_research(page):
    page, _ = page
    assert "Research, not for diagnosis" in page.text_content("body")


def test_nothing_leaves_the_machine(page, server):
    page, seen = page
    assert len(seen.requests) > 10
    assert [url for url in seen.requests if not url.startswith((server, "data:", f"blob:{server}"))] == []
    # Gradio's own stub says "Method not implemented" at each upload.
    assert [words for words in seen.complaints if words != "Method not implemented."] == []
    with urllib.request.urlopen(server) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert not re.search(r"https?:|\*", policy)


def test_an_upload_above_the_limit_is_refused(server):
    boundary = b'--x\r\nContent-Disposition: form-data; name="files"; filename="large.png"\r\n\r\n'
    body = boundary + bytes(np.zeros(2_000_000, np.uint8)) + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(f"{server}gradio_api/upload", body, headers))
    caught.value.close()
    assert caught.value.code == 413


def test_a_missing_package_and_a_wrong_limit_get_one_line(checkpoint, monkeypatch, capsys):
    assert main(["serve", str(checkpoint), "--upload_limit", "0"]) == 2
    assert "--upload_limit" in only_line(capsys)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["serve", str(checkpoint)]) == 2
    assert "pip install 'cancernet[app]'" in only_line(capsys)
