"""Templates filled: one place for escaping."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cancernet import __version__
from cancernet.evaluation.report import formatting

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = ("figure", "signed", "interval", "percent", "count", "threshold")
"""Functions of `formatting` that templates use."""


def fill(template: str, filters: Mapping[str, Callable[..., object]] | None = None, **context: Any) -> str:
    """Fill a template; every string of the context is escaped.

    Pages get our style and our script as they stand in their files, with the script's hash for the policy that lets
    nothing else run.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(formatting, name) for name in FILTERS} | dict(filters or {})
    script, style = (_source(name) for name in ("script.js", "style.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "names": formatting.NAMES,
        "script": Markup(script),
        "style": Markup(style),
        "script_hash": digest,
        "version": __version__,
    }
    return environment.get_template(template).render(**context)


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
