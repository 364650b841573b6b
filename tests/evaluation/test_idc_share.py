import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cancernet.evaluation.analysis import SETTINGS
from cancernet.evaluation.bootstrap import bootstrap_case_mean, bootstrap_rank_correlation, draw_cases
from cancernet.evaluation.idc_share import share_agreement, shares
from cancernet.evaluation.per_case import per_case
from cancernet.evaluation.report import write_report
from cancernet.evaluation.report.formatting import figure, signed
from cancernet.evaluation.run_folder import read_metrics
from tests.evaluation.pages import Page

DRAWS = 200


def sample(patches=600, cases=9):
    random = np.random.default_rng(0)
    case = random.integers(0, cases, patches)
    label = (random.random(patches) < case / cases).astype(int)
    probability = np.clip(0.6 * label + 0.5 * random.random(patches) - 0.05, 0, 1)
    return label, probability, case


def test_shares_are_those_counted_patch_by_patch():
    label, probability, case = sample()
    expert, predicted = shares(per_case(label, probability, case, 0.3))
    for number in range(9):
        of_case = case == number
        assert expert[number] == label[of_case].mean()
        assert predicted[number] == (probability[of_case] >= 0.3).mean()


def test_the_correlation_is_scipys_of_the_repeated_cases():
    label, probability, case = sample()
    expert, predicted = shares(per_case(label, probability, case, 0.3))
    found = bootstrap_rank_correlation(predicted, expert, draws=DRAWS, seed=3)
    assert found.estimate == pytest.approx(spearmanr(predicted, expert).statistic)
    values = []
    for counts in draw_cases(len(expert), DRAWS, 3)[1:].astype(int):
        rows = np.repeat(np.arange(len(expert)), counts)
        values.append(spearmanr(predicted[rows], expert[rows]).statistic)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))))
    assert found.draws == DRAWS


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_ties_share_their_ranks(pairs):
    a, b = np.array(pairs, dtype=float).T
    found = bootstrap_rank_correlation(a, b, draws=1).estimate
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    else:
        assert np.isnan(found)


def test_limits_of_agreement_are_1_96_deviations_from_the_mean_difference():
    rows = per_case(*sample(), 0.3)
    expert, predicted = shares(rows)
    found = share_agreement(rows, SETTINGS)
    difference = predicted - expert
    assert found.cases == 9
    assert found.mean_difference.estimate == pytest.approx(difference.mean())
    assert found.mean_difference.low == bootstrap_case_mean(difference).low
    assert found.sd == pytest.approx(difference.std(ddof=1))
    assert found.lower_limit == pytest.approx(difference.mean() - 1.96 * difference.std(ddof=1))
    assert found.upper_limit == pytest.approx(difference.mean() + 1.96 * difference.std(ddof=1))


def test_one_case_has_a_difference_and_neither_correlation_nor_limits():
    found = share_agreement(per_case([0, 1], [0.6, 0.7], ["a", "a"]), SETTINGS)
    assert found.mean_difference.estimate == 0.5
    assert found.spearman.estimate is found.sd is found.lower_limit is found.upper_limit is None
    with pytest.raises(ValueError, match="one shape"):
        bootstrap_rank_correlation([1.0], [1.0, 2.0])


def test_the_page_shows_the_figures_of_the_file(folder, page):
    share = read_metrics(folder).idc_share
    assert share.cases == 12
    assert "share" in page.attributes("id")
    for words in (figure(share.spearman.estimate), signed(share.mean_difference.estimate), signed(share.upper_limit)):
        assert words in page.text
    assert "Bland-Altman plot of the share of IDC by case" in page.attributes("aria-label")


def test_a_file_of_an_earlier_version_gives_a_page_without_it(copy):
    path = copy / "metrics.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    del entries["idc_share"], entries["sha256"]
    path.write_text(json.dumps(entries), encoding="utf-8")
    assert read_metrics(copy).idc_share is None
    assert "share" not in Page(write_report(copy).read_text(encoding="utf-8")).attributes("id")
