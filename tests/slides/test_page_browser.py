"""The page of a map in Chromium: the slider counts what Python counts."""

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.test_report_browser import CHROMIUM, FLAGS, PATIENCE
from tests.slides.drawing import draw_tissue

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium here, so the page was NOT tested in a browser: apt-get install -y chromium",
)


def test_the_slider_moves_areas_and_the_page_asks_for_nothing(predictor, tmp_path):
    pixels = draw_tissue(200, 250)
    mask = tmp_path / "mask.png"
    Image.fromarray(pixels.min(axis=2) < 200).save(mask)
    found = predictor.map(pixels, stride=25)
    folder = found.save(tmp_path / "map", mask)
    median = float(np.nanmedian(found.grid.astype(np.float32)))
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'cancernet[test]'")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), timeout=PATIENCE)
        page = chromium.new_page()
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((folder / "map.html").as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=PATIENCE)
        shown = page.locator("#idc-area").inner_text()
        page.evaluate(f"document.querySelector('button[data-threshold]').dataset.threshold = {median!r}")
        page.locator(".presets button").first.click()
        moved = page.locator("#idc-area").inner_text()
        chromium.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [(folder / "map.html").as_uri()]
    assert float(shown.split()[0]) == pytest.approx(found.idc_area, rel=0.01)
    called = found.grid.astype(np.float32) >= np.float32(median)
    assert float(moved.split()[0]) == pytest.approx(found.tissue_share[called].sum() * found.cell_area, rel=0.01)
    assert moved != shown
