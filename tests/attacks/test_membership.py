"""Membership attacks on a model that memorised, and on one that never saw the candidates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from memorised import ATTACKS, CANDIDATES, RECIPE, World, built, run
from sklearn.metrics import roc_auc_score

from attacks.membership.lira import Lira
from attacks.membership.loss_threshold import LossThreshold
from attacks.membership.white_box import WhiteBox
from privbench.contract import Attack, Budget, View
from privbench.errors import NotApplicable, UsageError

WEAK = {
    "Entropy": 0.53, "Gap": 0.6, "Boundary": 0.6, "QuantileRegression": 0.6, "ModifiedEntropy": 0.62,
    "Population": 0.62, "WhiteBox": 0.62, "ShadowClassifier": 0.64,
}  # fmt: skip
"""Area under the curve that attacks must reach which see less than a loss, or learn from little."""


@pytest.fixture(scope="module")
def world() -> World:
    return built()


def by_oracle(view: View) -> View:
    """The same seat with questions and answers in place of the weights."""
    module = view.public.net.module()
    public = replace(view.public, net=None)
    return replace(view, public=public, oracle=lambda x: module(x).detach().softmax(-1))


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_power_members_of_an_overfitted_model_score_higher(world: World, attack: Attack) -> None:
    auc = roc_auc_score(world.member, run(world, attack, world.view).scores)
    assert auc > WEAK.get(type(attack).__name__, 0.66)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_null_a_model_of_other_records_gives_nothing_away(world: World, attack: Attack) -> None:
    scores = run(world, attack, world.stranger).scores
    auc = roc_auc_score(world.member, scores)
    error = ((CANDIDATES + 1) / (12 * (CANDIDATES / 2) ** 2)) ** 0.5
    assert abs(auc - 0.5) < 3.3 * error  # two-sided level 0.001


def test_null_permuted_bits(world: World) -> None:
    scores = run(world, Lira(), world.view).scores
    rng = torch.Generator().manual_seed(1)
    order = [torch.randperm(CANDIDATES, generator=rng) for _ in range(40)]
    areas = torch.tensor([roc_auc_score(world.member[at], scores) for at in order])
    assert abs(float(areas.mean()) - 0.5) < 0.03


def test_the_likelihood_ratio_beats_the_loss_alone(world: World) -> None:
    loss = roc_auc_score(world.member, run(world, LossThreshold(), world.view).scores)
    ratio = roc_auc_score(world.member, run(world, Lira(), world.view).scores)
    assert ratio > loss


def test_thresholds_that_are_fixed_beforehand_separate(world: World) -> None:
    for attack, least in ((LossThreshold(), 0.58), (Lira(), 0.7)):
        guess = run(world, attack, world.view)
        assert guess.threshold is not None
        said = guess.scores > guess.threshold
        balanced = (said[world.member].double().mean() + (~said[~world.member]).double().mean()) / 2
        assert balanced > least
    assert run(world, Lira(mode="offline"), world.view).threshold is None


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_asking_gives_what_holding_the_weights_gives(world: World, attack: Attack) -> None:
    if isinstance(attack, WhiteBox):  # which cannot be had by asking
        return
    held = run(world, attack, world.view)
    asked = run(world, attack, by_oracle(world.view))
    torch.testing.assert_close(asked.scores, held.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_same_view_same_guess_and_nothing_is_changed(world: World, attack: Attack) -> None:
    x = world.view.public.candidates.x.clone()
    before = torch.random.get_rng_state()
    one, two = (run(world, attack, world.view) for _ in range(2))
    assert torch.equal(one.scores, two.scores) and one.threshold == two.threshold
    assert torch.equal(x, world.view.public.candidates.x)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_exposure_is_settled_before_the_target_is_asked(world: World, mode: str) -> None:
    one, other = (run(world, Lira(mode=mode), view) for view in (world.view, world.stranger))
    assert one.exposure is not None and torch.equal(one.exposure, other.exposure)
    assert not torch.equal(one.scores, other.scores)
    most = one.exposure.argsort(descending=True)[: CANDIDATES // 4]
    among = roc_auc_score(world.member[most], one.scores[most])
    assert among > roc_auc_score(world.member, one.scores)


def test_scores_follow_the_candidates_order(world: World) -> None:
    back = torch.arange(CANDIDATES).flip(0)
    public = replace(world.view.public, candidates=world.view.public.candidates[back])
    fitted = world.shadows["online"]
    tensors = {**fitted.tensors, "member": fitted.tensors["member"][:, back]}
    turned = replace(world.view, public=public, fitted=(replace(fitted, tensors=tensors),))
    expected = run(world, Lira(), world.view).scores.flip(0)
    found = Lira().run(turned, torch.Generator()).scores
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_loss_threshold_does_not_ask_more_than_it_may(world: World) -> None:
    asked: list[int] = []
    view = by_oracle(world.view)
    answer = view.oracle

    def oracle(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return answer(x)

    view = replace(view, oracle=oracle, budget=Budget(queries=CANDIDATES + 5))
    assert LossThreshold().run(view, torch.Generator()).threshold is None
    assert sum(asked) == CANDIDATES


def test_an_oracle_that_rounds_to_zero_gives_finite_scores(world: World) -> None:
    view = by_oracle(world.view)
    oracle = view.oracle
    view = replace(view, oracle=lambda x: (oracle(x) > 0.5).float())
    for attack in (each for each in ATTACKS if not isinstance(each, WhiteBox)):
        assert bool(run(world, attack, view).scores.isfinite().all())


def test_refusals(world: World) -> None:
    labels = replace(by_oracle(world.view), oracle=lambda x: torch.zeros(len(x), dtype=torch.int64))
    nothing = replace(by_oracle(world.view), oracle=None)
    unknown = replace(world.view, public=replace(world.view.public, candidates=None))
    for view in (labels, nothing, unknown):
        for attack in (LossThreshold(), Lira()):
            with pytest.raises(NotApplicable):
                run(world, attack, view)
    longer = replace(world.view.public, recipe=replace(RECIPE, epochs=31))
    with pytest.raises(UsageError, match="recipe"):
        run(world, Lira(), replace(world.view, public=longer))
    with pytest.raises(UsageError, match="offline"):
        Lira(mode="both").fits()
