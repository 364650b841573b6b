"""The site of docs/: built strictly, so that a page, a link, an anchor or a docstring that is missing fails."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r'<(?:script|img|link)[^>]*(?:src|href)="?(?:https?:)?//[^>]*>')


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_page_is_built_and_loads_nothing_from_elsewhere(site):
    for source in (ROOT / "docs").glob("*.md"):
        page = site / ("index.html" if source.stem == "index" else f"{source.stem}/index.html")
        text = page.read_text()
        assert "<h1" in text
        assert not LOADED.findall(text)


def test_the_python_page_has_the_docstrings_with_their_examples(site):
    text = (site / "python" / "index.html").read_text()
    for name in re.findall(r"^::: (\S+)", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE):
        assert f'id="{name}"' in text
    assert "micrometres" in text
    assert "<blockquote>" not in text  # an example that does not stand under `Examples:`
