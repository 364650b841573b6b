# mypy: allow-untyped-defs
import pandas as pd

from scripts.studies.edges import find_edges


def test_an_edge_is_where_a_neighbour_bears_the_other_label():
    label = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]
    cells = [(1 + 50 * x, 1 + 50 * y, value) for y, row in enumerate(label) for x, value in enumerate(row)]
    table = pd.DataFrame(cells, columns=["x", "y", "label"]).assign(case="a")
    edge, known = find_edges(table)
    assert edge.reshape(3, 4).tolist() == [
        [False, False, True, True],
        [False, True, True, True],
        [False, True, True, True],
    ]
    assert known.reshape(3, 4).tolist() == [[False, True, True, False], [True] * 4, [False, True, True, False]]


def test_patches_of_another_case_are_no_neighbours():
    table = pd.DataFrame({"case": ["a", "b"], "x": [1, 51], "y": [1, 1], "label": [0, 1]})
    assert not find_edges(table)[0].any()
