"""Links and pictures of README, CONTRIBUTING and docs/, and how much there is of them."""

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import PAGES, ROOT, tokens

MOST_BYTES = 300_000


def headings(page: Path) -> set[str]:
    """Return the anchors of a page as GitHub makes them."""
    titles = [after.content for token, after in pairwise(tokens(page)) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def targets(page: Path) -> list[str]:
    """Return what a page links to and shows."""
    return [str(token.attrs["href"]) for token in tokens(page) if token.type == "link_open"] + pictures(page)


def pictures(page: Path) -> list[str]:
    return [str(token.attrs["src"]) for token in tokens(page) if token.type == "image"]


def internal(page: Path) -> list[tuple[Path, str]]:
    """Return file and anchor of each link within the repository."""
    parts = [urlsplit(target) for target in targets(page)]
    return [((page.parent / part.path) if part.path else page, part.fragment) for part in parts if not part.scheme]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    for file, anchor in internal(page):
        assert file.resolve().exists(), f"{page.name}: {file}"
        assert not anchor or anchor in headings(file.resolve()), f"{page.name}: {file.name}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_elsewhere_is_an_address(page):
    for target in targets(page):
        part = urlsplit(target)
        assert part.scheme in ("", "https"), target
        assert not part.scheme or "." in part.netloc, target


def test_every_picture_is_small_shown_and_described():
    shown = {(page.parent / name).resolve() for page in PAGES for name in pictures(page)}
    files = {file for file in (ROOT / "docs").iterdir() if file.suffix in (".png", ".svg", ".jpg")}
    assert shown == files
    assert {file.name: file.stat().st_size for file in files if file.stat().st_size > MOST_BYTES} == {}
    assert all(token.content for page in PAGES for token in tokens(page) if token.type == "image")


def test_the_readme_is_as_long_as_a_front_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", readme, flags=re.DOTALL | re.MULTILINE)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []
    assert len(readme.split()) <= 1300
    assert readme.count("\n") <= 170
    assert len(pictures(ROOT / "README.md")) <= 4


def test_the_picture_of_the_rooms_shows_what_its_source_says():
    source = (ROOT / "docs" / "rooms.dot").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8")
    said = [line.strip() for label in re.findall(r'label="([^"]+)"', source) for line in label.split(r"\n")]
    assert [line for line in said if f">{line}</text>" not in picture.replace("&#160;", " ").replace("> ", ">")] == []
    rooms = [ROOT / line for line in said if line.startswith("cancernet/")]
    assert len(rooms) == 8
    assert [room for room in rooms if not room.is_dir()] == []
