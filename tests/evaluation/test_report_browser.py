"""The report in Chromium: what a reader moves, reads and sorts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cancernet.evaluation.metrics import confusion, rates
from cancernet.evaluation.per_case import per_case
from cancernet.evaluation.report import write_report
from cancernet.evaluation.report.formatting import figure
from cancernet.evaluation.report.pooling import subject_of
from cancernet.evaluation.run_folder import read_run
from scripts.picture import CHROMIUM
from tests.evaluation.run_folders import draw_run

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 300_000.0
"""Milliseconds: a browser starts slowly where other work has the cores."""
HOSTILE = "</script><img src=x onerror=alert(1)>"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium here, so the report was NOT tested in a browser: apt-get install -y chromium",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    names = [HOSTILE, *(str(8001 + number) for number in range(11))]
    folder = draw_run(tmp_path_factory.mktemp("browser") / "run", names=names, side=8, outside=1)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def metrics(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'cancernet[test]'")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Open a file as a page of some width; what it asks for, complains of or pops up is collected."""
    contexts = []

    def visit(path, width=1280):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page, seen = context.new_page(), SimpleNamespace(requests=[], complaints=[])
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (seen.complaints.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        return page, seen

    yield visit
    for context in contexts:
        context.close()


def matrix(page):
    counts = {key: int(page.inner_text(f"#matrix-{key}").replace(",", "")) for key in ("tn", "fp", "fn", "tp")}
    return [[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]]


def rows_of(figures):
    return [list(row) for row in figures.confusion_matrix]


def shown(page, name):
    return page.inner_text(f".plain [data-metric={name}]")


def case_table(page):
    rows = page.eval_on_selector_all(
        "#case-table tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    columns = page.eval_on_selector_all("#case-table th[data-key]", "heads => heads.map(head => head.dataset.key)")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def check_against_numpy(page, folder, threshold):
    tested = read_run(folder).tested
    label, probability = tested["label"].to_numpy(), tested["probability"].to_numpy()
    counts = confusion(label, probability, threshold)
    assert matrix(page) == [[counts.tn, counts.fp], [counts.fn, counts.tp]]
    values = rates(counts)
    for name in ("sensitivity", "specificity", "precision", "npv", "f1", "mcc", "accuracy", "balanced_accuracy"):
        assert shown(page, name) == figure(values[name])
    expected = {row.case: row for row in per_case(label, probability, tested["case"].to_numpy(), threshold)}
    table = case_table(page)
    assert {row["case"] for row in table} == set(expected)
    for row in table:
        for key in ("tn", "fp", "fn", "tp"):
            assert int(row[key]) == getattr(expected[row["case"]], key)
        for key in ("sensitivity", "specificity", "balanced_accuracy", "f1", "auroc", "brier"):
            assert row[key] == figure(getattr(expected[row["case"]], key))


def place(page, name):
    return [float(page.get_attribute(f"#{name}-point", axis)) for axis in ("cx", "cy")]


def distance_from_curve(page, name):
    """Distance, in units of the view box, of a point that the slider moves from its curve."""
    corners = page.eval_on_selector(
        f"#{name}-point",
        "point => [...point.ownerSVGElement.querySelectorAll('path')].filter(path => /accent/.test(path.style.stroke))"
        ".map(path => path.getAttribute('d').match(/[-\\d.]+/g).map(Number))",
    )
    (curve,) = (np.reshape(path, (-1, 2)) for path in corners)
    start, step = curve[:-1], np.diff(curve, axis=0)
    along = ((place(page, name) - start) * step).sum(axis=1) / np.maximum((step**2).sum(axis=1), 1e-12)
    nearest = start + np.clip(along, 0, 1)[:, None] * step
    return np.linalg.norm(nearest - place(page, name), axis=1).min()


def test_matrix_equals_the_metrics_at_the_stored_thresholds(visit, folder, metrics):
    page, _ = visit(folder / "report.html")
    assert matrix(page) == metrics["at_validation_threshold"]["confusion_matrix"]
    assert shown(page, "mcc") == figure(metrics["at_validation_threshold"]["mcc"])
    check_against_numpy(page, folder, metrics["at_validation_threshold"]["threshold"])
    page.click(".presets button[data-threshold='0.5']")
    assert matrix(page) == metrics["confusion_matrix"]
    for name in ("sensitivity", "specificity", "precision", "npv", "f1", "mcc", "accuracy", "balanced_accuracy"):
        assert shown(page, name) == figure(metrics[name])
    check_against_numpy(page, folder, 0.5)


def test_operating_points_move_the_slider(visit, folder, metrics):
    page, _ = visit(folder / "report.html")
    for point in metrics["operating_points"]:
        page.click(f"#operating-points button[data-threshold='{point['threshold']}']")
        for name, value in point["test"].items():
            assert shown(page, name) == figure(value)


def test_keyboard_moves_everything_together(visit, folder):
    page, _ = visit(folder / "report.html")
    stops = json.loads(page.text_content("#report-data"))["stops"]
    before = matrix(page), place(page, "roc"), place(page, "pr"), case_table(page)
    page.focus("#slider")
    for _ in range(25):
        page.keyboard.press("ArrowRight")
    threshold = stops[int(page.input_value("#slider"))]
    after = matrix(page), place(page, "roc"), place(page, "pr"), case_table(page)
    assert all(one != other for one, other in zip(before, after, strict=True))
    check_against_numpy(page, folder, threshold)
    plots = json.loads(page.text_content("#report-data"))["plots"]
    roc, pr = plots["roc"], plots["pr"]
    (tn, fp), (fn, tp) = matrix(page)
    assert place(page, "roc")[0] == pytest.approx(roc["left"] + fp / (tn + fp) * roc["width"])
    assert place(page, "roc")[1] == pytest.approx(roc["top"] + fn / (fn + tp) * roc["height"])
    assert place(page, "pr")[1] == pytest.approx(pr["top"] + fp / (tp + fp) * pr["height"])
    assert max(distance_from_curve(page, name) for name in ("roc", "pr")) < 0.1
    assert page.inner_text("#threshold-value") == page.get_attribute("#slider", "aria-valuetext")
    page.keyboard.press("End")
    check_against_numpy(page, folder, 1.0)
    page.keyboard.press("Home")
    check_against_numpy(page, folder, 0.0)


def test_any_threshold_can_be_typed(visit, folder):
    page, _ = visit(folder / "report.html")
    score = float(np.sort(read_run(folder).tested["probability"].to_numpy())[-40])
    for threshold in (0.1234567, score, float(np.nextafter(score, 1))):
        page.fill("#exact", repr(threshold))
        check_against_numpy(page, folder, threshold)


def test_worst_cases_stand_first_and_headings_sort(visit, folder, metrics):
    page, _ = visit(folder / "report.html")
    ranked = [row["balanced_accuracy"] for row in case_table(page)]
    assert ranked[-1] == "–"  # the case of one class
    assert ranked[:-1] == sorted(ranked[:-1])
    assert {row["case"] for row in case_table(page)[: len(metrics["worst_tenth"])]} == set(metrics["worst_tenth"])
    page.click("th[data-key=fp] button")
    falling = [int(row["fp"]) for row in case_table(page)]
    assert falling == sorted(falling, reverse=True)
    assert page.get_attribute("th[data-key=fp]", "aria-sort") == "descending"
    assert page.get_attribute("th[data-key=balanced_accuracy]", "aria-sort") is None
    page.click("th[data-key=fp] button")
    assert [int(row["fp"]) for row in case_table(page)] == falling[::-1]
    page.focus("th[data-key=case] button")
    page.keyboard.press("Enter")
    assert case_table(page)[-1]["case"] == "8011"


@pytest.mark.parametrize("width", [1280, 390])
def test_page_is_quiet_and_fits(visit, folder, width):
    page, seen = visit(folder / "report.html", width)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert seen.complaints == []
    outside = [url for url in seen.requests if not url.startswith("data:")]
    assert outside == [(folder / "report.html").as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_names_of_cases_stay_text(visit, folder):
    page, seen = visit(folder / "report.html")
    assert any(
        HOSTILE in title for title in page.eval_on_selector_all("article h3", "all => all.map(h => h.textContent)")
    )
    assert page.eval_on_selector_all("script", "all => all.length") == 2
    assert page.eval_on_selector_all("img[onerror]", "all => all.length") == 0
    assert seen.complaints == []


def test_controls_are_labelled_and_text_has_contrast(visit, folder):
    page, _ = visit(folder / "report.html")
    assert page.get_by_role("slider", name="Threshold").get_attribute("id") == "slider"
    assert page.get_by_role("spinbutton", name="exact").get_attribute("id") == "exact"
    unnamed = "all => all.filter(one => !(one.alt || one.getAttribute('aria-label') || one.textContent)).length"
    for selector in ("img", "svg[role=img]", "button", "th"):
        assert page.eval_on_selector_all(selector, unnamed) == 0
    luminance = """colour => colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(c => c / 255)
        .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0)"""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ratios = page.evaluate(
            f"""() => {{
              const luminance = {luminance};
              const paper = luminance(getComputedStyle(document.body).backgroundColor);
              return ["body", ".note", "nav a", "td small", ".legend", "dt"].map(selector => {{
                const ink = luminance(getComputedStyle(document.querySelector(selector)).color);
                return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
              }});
            }}"""
        )
        assert min(ratios) >= 4.5  # WCAG 2.2, level AA


def test_pooled_page_calls_each_case_by_its_own_fold(visit, tmp_path):
    from cancernet.cli import main

    folds = [
        draw_run(tmp_path / f"f{n}", names=[f"{n}{i}" for i in range(4)], seed=n, side=6, split="case", folds=2, fold=n)
        for n in range(2)
    ]
    assert main(["report", *map(str, folds), "--output", str(tmp_path / "pooled.html")]) == 0
    page, seen = visit(tmp_path / "pooled.html")
    pooled = subject_of([read_run(folder) for folder in folds]).metrics
    assert matrix(page) == rows_of(pooled.at_validation_threshold)
    expected = {row.case: figure(row.balanced_accuracy) for row in pooled.per_case}
    assert {row["case"]: row["balanced_accuracy"] for row in case_table(page)} == expected
    page.click(".presets button[data-threshold='0.5']")
    assert matrix(page) == rows_of(pooled)
    page.click(".presets button[data-threshold='own']")
    assert matrix(page) == rows_of(pooled.at_validation_threshold)
    assert seen.complaints == []


def test_printed_page_opens_what_is_folded(visit, folder):
    page, _ = visit(folder / "report.html")
    assert not page.evaluate("document.querySelector('details').open")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.evaluate("document.querySelector('details').open")
    page.emulate_media(media="print")
    assert not page.is_visible("#slider")
    assert page.is_visible("#matrix-tp")
