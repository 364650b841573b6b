"""The model card: what a tested model is for, what it can do and where it ends, in Markdown."""

import re
from pathlib import Path

from markupsafe import Markup, escape

from cancernet.errors import one_line
from cancernet.evaluation.metrics import THRESHOLD_FREE
from cancernet.evaluation.report.formatting import fill
from cancernet.evaluation.report.narrative import describe, evaluated_at
from cancernet.evaluation.results import Evaluation
from cancernet.evaluation.run_folder import MODEL_CARD, read_metrics
from cancernet.files import write_text

SPECIAL = re.compile(r"([\\`*_{}\[\]|#~])")
"""What Markdown would read as markup."""


def write_model_card(folder: str | Path) -> Path:
    """Write `model_card.md` into a run folder, from its `metrics.json`.

    Returns:
        The card's path.

    Raises:
        InputError: There is no such file, or it is broken.
    """
    folder = Path(folder)
    return write_text(folder / MODEL_CARD, render_model_card(read_metrics(folder)))


def render_model_card(metrics: Evaluation) -> str:
    """Return the card as Markdown; strings of the data are escaped for Markdown and for HTML."""
    text = fill(
        "model_card.md.j2",
        filters={"plain": plain},
        m=metrics,
        at=evaluated_at(metrics),
        free=THRESHOLD_FREE,
        statements=describe(metrics),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def plain(text: object) -> Markup:
    """Make a string one line that means itself in Markdown."""
    # First HTML, whose entities hold a "#" that has to stay, then the characters of Markdown around them.
    pieces = re.split(r"(&#?\w+;)", str(escape(one_line(text))))
    return Markup("".join(piece if number % 2 else SPECIAL.sub(r"\\\1", piece) for number, piece in enumerate(pieces)))
