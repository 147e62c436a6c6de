"""Some of the records, for machines that cannot train on all."""

from __future__ import annotations

import numpy as np

from privbench.errors import DataError


def chosen(labels: np.ndarray, parts: np.ndarray | None, count: int | None) -> np.ndarray:
    """Positions, ascending, of ``count`` records in which classes and parts keep their shares.

    Drawn with a seed of their own, so that every seed of a run splits the same records; a larger
    count adds to a smaller one.

    Args:
        labels: ``(n,)``, 0 to k - 1.
        parts: ``(n,)``, or None.
        count: None = all.

    Raises:
        DataError: more than there are, or so few that a class has none.
    """
    everyone = np.arange(len(labels))
    if count is None:
        return everyone
    if not 2 <= count <= len(labels):
        raise DataError(
            f"data.records={count}; expected 2 to {len(labels)}, as many as there are, or leave it "
            "out for all"
        )
    groups = labels if parts is None else labels + (labels.max() + 1) * parts
    mixed = np.random.default_rng(0).permutation(len(labels))
    # Each group is spread evenly over [0, 1) in random order; cutting there stratifies.
    place = np.empty(len(labels))
    for group in np.unique(groups):
        mine = mixed[groups[mixed] == group]
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    found = np.sort(mixed[np.argsort(place[mixed], kind="stable")][:count])
    lost = np.setdiff1d(labels, labels[found])
    if len(lost):
        raise DataError(
            f"data.records={count} leaves class {lost[0]} without a record; expected more, of "
            f"{len(labels)} that there are"
        )
    return found
