"""Make a picture of a part of a page, such as a report, for the documentation.

scripts/python -m scripts.picture lightning_logs/version_0/report.html "#maps" docs/report.png
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

from cancernet.errors import InputError, explained
from cancernet.options import OptionParser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The system's browser; None where there is none."""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")


@explained("picture")
def main(arguments: list[str]) -> int:
    """Run from the command line."""
    parser = OptionParser(prog="scripts/python -m scripts.picture", description=__doc__)
    parser.add_argument("page", type=Path, help="HTML file")
    parser.add_argument("part", help="CSS selector of the part")
    parser.add_argument("output", type=Path, help="PNG file")
    parser.add_argument("--width", type=int, default=1000, help="of the window, in pixels (1000)")
    parser.add_argument("--height", type=int, help="of the picture, from the top of the part; all of it if not given")
    given = parser.parse_args(arguments)
    if not given.page.is_file():
        raise InputError(f"{given.page}: no such page; give a report.html or map.html")
    if CHROMIUM is None:
        raise InputError("no Chromium here: apt-get install -y chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = chromium.new_page(viewport={"width": given.width, "height": 1000})
        page.goto(given.page.resolve().as_uri())
        page.locator(given.part).first.screenshot(path=given.output)
        chromium.close()
    shrink(given.output, given.height)
    return 0


def shrink(path: Path, height: int | None = None) -> None:
    """Cut a picture to a height, and leave 256 colours: a third of the bytes, and no difference that an eye sees."""
    picture = Image.open(path).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, height or picture.height)))
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height} pixels, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
