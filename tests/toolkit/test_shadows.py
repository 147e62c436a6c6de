"""Shadow models: balanced halves, two roads with one result, and clear refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from privbench.contract import (
    Budget,
    Knowledge,
    Public,
    Recipe,
    Samples,
    Spec,
    child_rng,
    load_name,
)
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit import shadows
from privbench.toolkit.shadows import ShadowModels, check_recipe, random_halves, shadow_logits

TRAIN = "privbench.regimes.training.train"


def knowing(recipe: Recipe | None, pool: Samples, models: int = 4) -> Knowledge:
    public = Public(candidates=pool, auxiliary=pool[:20], recipe=recipe, trainer=TRAIN)
    return Knowledge(public, Budget(shadow_models=models))


def root() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def test_every_candidate_is_in_half_of_the_models(recipe: Recipe, pool: Samples) -> None:
    fitted = ShadowModels().fit(knowing(recipe, pool), root())
    member = fitted.tensors["member"]
    assert member.sum(0).tolist() == [2] * len(pool)
    assert torch.equal(member[0], ~member[1]) and not torch.equal(member[0], member[2])
    assert fitted.facts == {
        "models": 4, "records": 30, "pairing": "complementary", "signature": recipe.signature,
    }  # fmt: skip


def test_independent_halves_are_not_tied_to_each_other() -> None:
    member = random_halves(41, 400, root(), paired=False)
    assert member.sum(1).tolist() == [200] * 41
    together = torch.corrcoef(member.double())
    assert float(together.fill_diagonal_(0.0).abs().max()) < 0.25


def test_both_roads_give_the_same_models(
    recipe: Recipe, pool: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = ShadowModels().fit(knowing(recipe, pool), root())
    monkeypatch.setattr(shadows, "stackable", lambda *_: False)
    apart = ShadowModels().fit(knowing(recipe, pool), root())
    assert together.tensors.keys() == apart.tensors.keys()
    for name, tensor in together.tensors.items():
        torch.testing.assert_close(tensor, apart.tensors[name], rtol=0, atol=2e-6)


def test_a_network_that_cannot_be_stacked_is_trained_all_the_same(
    recipe: Recipe, pool: Samples
) -> None:
    layers = Spec("privbench.models.mlp.Mlp", {"widths": (9, 4)})
    recipe = replace(
        recipe, net=replace(recipe.net, spec=layers), loss="multi_margin_loss", epochs=1
    )
    fitted = ShadowModels().fit(knowing(recipe, pool), root())
    mine = fitted.tensors["member"][1]
    alone = load_name(TRAIN)(recipe, pool[mine], child_rng(root(), "model", 1))
    assert torch.equal(fitted.tensors["param:linear0.weight"][1], alone.weights["linear0.weight"])


def test_same_seed_same_models_and_another_seed_others(recipe: Recipe, pool: Samples) -> None:
    knowledge = knowing(recipe, pool)
    one, two = (ShadowModels().fit(knowledge, root()) for _ in range(2))
    other = ShadowModels().fit(knowledge, torch.Generator().manual_seed(12))
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, two.tensors[name])
        assert not torch.equal(tensor, other.tensors[name])


def test_offline_models_are_trained_on_auxiliary_records_alone(
    recipe: Recipe, pool: Samples
) -> None:
    knowledge = knowing(recipe, pool)
    blind = replace(knowledge.public, candidates=None)
    fitted = ShadowModels(pairing="auxiliary").fit(replace(knowledge, public=blind), root())
    assert fitted.tensors["member"].shape == (4, 20)


def test_shadow_logits_are_those_of_each_model(recipe: Recipe, pool: Samples) -> None:
    fitted = ShadowModels().fit(knowing(recipe, pool), root())
    logits = shadow_logits(fitted, recipe.net, pool.x[:7])
    state = {
        name.removeprefix("param:"): tensor[3]
        for name, tensor in fitted.tensors.items()
        if name.startswith("param:")
    }
    module = replace(recipe.net, weights=state).module()
    torch.testing.assert_close(logits[3], module(pool.x[:7]).detach())


@pytest.mark.parametrize("models", [0, 1, 3])
def test_refuses_models_that_make_no_pairs(recipe: Recipe, pool: Samples, models: int) -> None:
    with pytest.raises(UsageError, match=f"shadow_models={models}.*even"):
        ShadowModels().fit(knowing(recipe, pool, models), root())


def test_refuses_what_it_is_not_granted(recipe: Recipe, pool: Samples) -> None:
    with pytest.raises(NotApplicable, match="recipe"):
        ShadowModels().fit(knowing(None, pool), root())
    with pytest.raises(NotApplicable, match="auxiliary"):
        public = replace(knowing(recipe, pool).public, auxiliary=None)
        knowledge = Knowledge(public, Budget())
        ShadowModels(pairing="auxiliary").fit(knowledge, root())
    with pytest.raises(UsageError, match="complementary"):
        ShadowModels(pairing="twins").fit(knowing(recipe, pool), root())


def test_refuses_shadows_of_another_recipe(recipe: Recipe, pool: Samples) -> None:
    fitted = ShadowModels().fit(knowing(recipe, pool, 2), root())
    check_recipe(fitted, recipe)
    with pytest.raises(UsageError, match="again=true"):
        check_recipe(fitted, replace(recipe, epochs=3))
