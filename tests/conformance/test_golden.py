"""Null and power over many draws: 200 for each attack on four targets, 20 targets for inversion
(whose null data are another training)."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from privbench import plugins
from privbench.checks import Workshop, attack_rules
from privbench.compose.building import build
from privbench.contract import Attack

ATTACKS = {
    choice.name: choice.path
    for choice in plugins.listing()["attack"].values()
    if choice.provider == "privbench"
}


def _made(name: str) -> Attack:
    attack = build(OmegaConf.to_container(OmegaConf.load(ATTACKS[name])), "attack")
    assert isinstance(attack, Attack)
    return attack


@pytest.mark.golden
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ATTACKS)
def test_200_null_draws_hold_the_blind_value(name: str, shop: Workshop) -> None:
    attack = _made(name)
    targets, draws = (20, 1) if attack.goal == "inversion" else (4, 50)
    attack_rules.is_quiet(name, attack, shop, targets=targets, draws=draws)


@pytest.mark.golden
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_signal_is_found_in_three_targets(name: str, shop: Workshop) -> None:
    attack_rules.is_loud(name, _made(name), shop, targets=3)
