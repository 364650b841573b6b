"""How figures are written, the same on the page, in the model card and in the comparison, and templates filled."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cancernet import __version__
from cancernet.evaluation.metrics import METRICS
from cancernet.evaluation.values import Difference, Interval

TEMPLATES = Path(__file__).parent / "templates"
UNDEFINED = "–"
"""What stands where a figure is 0 / 0; the page says so in its legend."""
NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "precision (PPV)",
    "npv": "NPV",
    "f1": "F1 of IDC",
    "mcc": "MCC",
    "brier": "Brier score",
    "log_loss": "log loss (nats)",
}
"""Metrics as a reader calls them, in the order of the tables."""

assert tuple(NAMES) == METRICS


def figure(value: float | None, digits: int = 3) -> str:
    """Write a number with a fixed count of decimals; ties go away from zero, as a browser's `toFixed` has them.

    >>> figure(0.0625), figure(None)
    ('0.063', '–')
    """
    if value is None or value != value:
        return UNDEFINED
    text = str(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))
    return (text.lstrip("-") if not text.strip("-0.") else text).replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """Write a difference with its sign.

    >>> signed(0.25, 2), signed(-0.25, 2)
    ('+0.25', '−0.25')
    """
    text = figure(value, digits)
    return text if value is None or text.startswith(("−", UNDEFINED)) else f"+{text}"


def estimate(value: Interval) -> str:
    """Write the estimate of an interval, that of a difference with its sign."""
    return (signed if isinstance(value, Difference) else figure)(value.estimate)


def interval(value: Interval | None, digits: int = 3) -> str:
    """Write the ends of an interval, e.g. "0.912 to 0.951"."""
    if value is None or UNDEFINED in (ends := [figure(end, digits) for end in (value.low, value.high)]):
        return UNDEFINED
    return " to ".join(ends)


def cell(value: Interval | None) -> str:
    """Write an estimate above its interval, for a table on the terminal."""
    return UNDEFINED if value is None else f"{estimate(value)}\n{interval(value)}"


def percent(value: float | None, digits: int = 0) -> str:
    r"""Write a fraction as per cent; a small one that is not 0 is never written as 0.

    >>> percent(0.25), percent(0.001)
    ('25\xa0%', '0.1\xa0%')
    """
    if value is None or value != value:
        return UNDEFINED
    if digits == 0 and (0 < value < 0.01 or 0.99 < value < 1):
        digits = 1
    return f"{figure(100 * value, digits)}\u00a0%"


def count(number: int, noun: str = "", plural: str | None = None) -> str:
    """Write a number with separators of thousands, with its noun in the right number.

    >>> count(1, "case"), count(1200, "patch", "patches")
    ('1 case', '1,200 patches')
    """
    if not noun:
        return f"{number:,}"
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def threshold(value: float | None) -> str:
    """Write a threshold with four significant digits.

    >>> threshold(0.0123456)
    '0.01235'
    """
    return UNDEFINED if value is None else f"{value:.4g}"


def fill(
    template: str,
    filters: Mapping[str, Callable[..., object]] | None = None,
    folder: Path = TEMPLATES,
    **context: Any,
) -> str:
    """Fill a template of a folder; every string of the context is escaped.

    Pages get style.css and the folder's script.js as they are, and the script's hash for the policy that lets no other
    script run.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    writers = (figure, signed, estimate, interval, percent, count, threshold)
    environment.filters |= {writer.__name__: writer for writer in writers} | dict(filters or {})
    files = folder / "script.js", TEMPLATES / "style.css"
    script, style = (file.read_text(encoding="utf-8") for file in files)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "names": NAMES,
        "script": Markup(script),
        "style": Markup(style),
        "script_hash": digest,
        "version": __version__,
    }
    return environment.get_template(template).render(**context)
