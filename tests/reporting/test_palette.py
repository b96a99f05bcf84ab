"""Colours: fixed, distinct, apart for the colour-blind."""

import numpy as np

from clippy_cli.reporting.palette import colour, palette

# Simulation of a viewer without red (protan) or green (deutan) cones, on linear RGB (Viénot, Brettel and Mollon, 1999).
PROTAN = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTAN = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


def test_the_table_is_whole_distinct_and_can_not_be_changed():
    table = palette()
    assert table.shape == (256, 3)
    assert len(np.unique(table, axis=0)) == 256
    assert colour(0) == (0, 0, 0)
    assert colour(1) == (230, 159, 0)
    assert not table.flags.writeable


def test_many_labels_stay_apart_and_away_from_black():
    table = palette().astype(float)
    for count, apart in ((8, 60), (20, 60), (150, 20)):
        used = table[: count + 1]
        distances = np.linalg.norm(used[:, None] - used[None], axis=2) + 1e9 * np.eye(count + 1)
        assert distances.min() > apart


def test_the_first_eight_stay_apart_without_red_or_green_cones():
    linear = (palette()[1:9] / 255.0) ** 2.2
    for simulate in (PROTAN, DEUTAN):
        seen = 255 * np.clip(linear @ simulate.T, 0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1e9 * np.eye(8)
        assert distances.min() > 30
