"""Templates filled and files written: one place for escaping and for leaving no half file."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cancernet import __version__
from cancernet.errors import InputError
from cancernet.evaluation.report import formatting
from cancernet.files import replacing

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


def write_text(path: Path, text: str) -> Path:
    """Write a file, and its folder where there is none.

    Raises:
        InputError: The place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give a place that can be") from error
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file (see `write_text`); what is undefined (not a number) becomes null."""
    return write_text(path, json.dumps(_without_nan(content), indent=2, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
