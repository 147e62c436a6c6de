"""A model that was trained elsewhere, beside shadow models that were trained otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from privbench.contract import Fitted, Net, Samples, Spec
from privbench.likeness import softened, unlike

NET = Net(Spec("torch.nn.Linear", {"in_features": 2, "out_features": 2}))
RIGHT = {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "bias": torch.zeros(2)}


def views(facts: dict[str, str]) -> list[SimpleNamespace]:
    """Four records, of which two models know the first two and the last two, and are right on those."""
    y = torch.tensor([0, 1, 0, 1])
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    stacked = {f"param:{k}": torch.stack([v, -v]) for k, v in RIGHT.items()}
    member = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    fit = Fitted({"member": member} | stacked, facts)
    public = SimpleNamespace(candidates=Samples(x, y), auxiliary=None)
    return [SimpleNamespace(fitted=(fit,), public=public, topology=SimpleNamespace(net=NET))]


def test_shadow_models_of_another_recipe_are_told_of() -> None:
    seen = views({"signature": "a", "pairing": "complementary"})
    (said,) = unlike(seen, own=0.6, others=0.5)
    assert (
        "right on 1.00 of their own records and 0.00 of others, the target on 0.60 and 0.50" in said
    )
    assert "regime.epochs" in said
    assert unlike(seen, own=0.95, others=0.1) == ()
    assert len(unlike(seen, own=1.0, others=0.9)) == 1


def test_nothing_is_said_where_nothing_is_known() -> None:
    seen = views({"signature": "a", "pairing": "complementary"})
    assert unlike(seen, own=None, others=0.5) == unlike(views({}), own=0.1, others=0.1) == ()
    assert unlike(views({"signature": "a", "pairing": "auxiliary"}), own=0.1, others=0.1) == ()


def test_probabilities_in_the_place_of_logits_are_told_of() -> None:
    x = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    (said,) = softened(Net(Spec("torch.nn.Softmax", {"dim": 1})), x)
    assert "without its last softmax" in said
    assert softened(Net(Spec("torch.nn.LogSoftmax", {"dim": 1})), x) == ()
    assert softened(Net(Spec("torch.nn.Linear", {"in_features": 2, "out_features": 2})), x) == ()
