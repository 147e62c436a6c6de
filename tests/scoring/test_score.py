import json
from dataclasses import asdict, replace

import pytest

from privbench.scoring.score import Score

SURE = Score("reconstruction", "psnr_db", "host", 20.0, 18.0, 22.0, n=50, blind=15.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "leaks"),
        ({"low": 15.0}, "not shown to leak"),
        ({"reliable": False}, "too few"),
        ({"by_construction": True}, "by construction"),
        ({"value": float("nan")}, "too few"),
        ({"blind": float("nan")}, "too few"),
        ({"metric": "mse"}, "not shown to leak"),
        ({"metric": "mse", "blind": 23.0}, "leaks"),
    ],
)
def test_verdict(change, word):
    assert replace(SURE, **change).verdict() == word


def test_scores_travel_as_json():
    assert Score(**json.loads(json.dumps(asdict(SURE)))) == SURE
