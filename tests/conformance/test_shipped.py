"""Every attack and defense of ours keeps every rule, as a stranger's has to."""

from __future__ import annotations

from pathlib import Path

import pytest

from privbench import plugins
from privbench.checks import Workshop, checks_of, conformance
from privbench.checks.kit import GROUPS

COSTLY = (
    "activation_inversion",
    "activation_match",
    "analytic",
    "cocktail_party",
    "fsha",
    "gradient_inversion",
    "gradient_inversion_geiping",
    "dlg",
    "idlg",
    "idlg_prior",
    "grad_inversion",
    "generative_prior",
    "gradient_to_input",
    "inverse_network",
    "multi_snapshot",
    "rmle",
    "stem_differencing",
    "lira_offline",
    "lira_per_example",
    "rmia_offline",
    "base_offline",
    "white_box",
    "loss_trajectory",
    "quantile_regression",
    "boundary",
    "gradient_alignment",
    "gradient_classifier",
    "probe_match",
    "recurrence",
    "gradient_match",
    "pcat",
    "query_free",
    "sdar",
    "unsplit",
    "unsplit_published",
    "imprint",
    "trap_weights",
    "rmia",
    "base",
    "reference",
    "difficulty_calibration",
    "shadow_classifier",
    "gradient_canary",
)
"""Attacks that search, train or need a crowd's whole traffic, seconds a rule; and presets of others."""

STATIC = ("can_be_built", "cites_its_source", "states_what_it_needs")
"""Rules that attack nothing."""

OURS = [
    choice.name
    for group in GROUPS
    for choice in plugins.listing()[group].values()
    if choice.provider == "privbench"
]

test_shipped = conformance(*(name for name in OURS if name not in COSTLY))
test_costly = pytest.mark.slow(conformance(*COSTLY))


@pytest.mark.parametrize("name", COSTLY)
def test_what_costly_attacks_say_of_themselves(name: str) -> None:
    found = [check for check in checks_of(name) if check.rule in STATIC]
    assert len(found) == len(STATIC)
    for check in found:
        check.run(Workshop(Path("nowhere")))
