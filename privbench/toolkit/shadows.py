"""Shadow models: models like the target, trained by its own recipe on records that we choose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privbench.contract import (
    Fit,
    Fitted,
    Knowledge,
    Net,
    Recipe,
    Samples,
    child_rng,
    load_name,
)
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit.forked import State, side_by_side
from privbench.toolkit.stacked import Stacked, stackable, train_stacked

PAIRINGS = ("complementary", "independent", "auxiliary")
_PARAM = "param:"
_PART = 2048  # records of which a network's activations are held at a time


@dataclass(frozen=True, kw_only=True)
class ShadowModels(Fit):
    """Models trained on random halves of a pool; ``knowledge.budget.shadow_models`` of them.

    Models 2i and 2i+1 are trained on complementary halves, so that every record is in exactly half
    of an even number of models (Carlini et al., "Membership Inference Attacks From First
    Principles", 2022, https://arxiv.org/abs/2112.03570, section VI; there the halves of different
    models are balanced over all models together).

    Args:
        pairing: ``complementary``, halves of the candidates; ``independent``, halves of the
            candidates drawn for each model alone, for ensembles of which each model becomes a
            target of the others (beside its complement a target gives itself away: its membership
            is then written in the others'); ``auxiliary``, complementary halves of the auxiliary
            records, so that every candidate is out of every model.

    The result holds ``member`` ``(models, pool)`` and ``param:<name>`` ``(models, ...)``, and the
    facts ``models``, ``records`` (of one model), ``pairing`` and ``signature`` of the recipe.
    """

    pairing: str = "complementary"

    def fit(self, knowledge: Knowledge, rng: torch.Generator) -> Fitted:
        """Train the models: together where the recipe allows, else each by the target's trainer.

        Those are the two roads that round differently, so the recipe alone decides between them;
        on the second, as many processes train as the harness grants.

        Raises:
            UsageError: unknown pairing, or a number of models that is odd or below 2.
            NotApplicable: pool, recipe or trainer are not granted.
            TrainingError: a model got NaN.
        """
        models, public = knowledge.budget.shadow_models, knowledge.public
        if self.pairing not in PAIRINGS:
            raise UsageError(
                f"pairing='{self.pairing}' is unknown; expected one of {', '.join(PAIRINGS)}"
            )
        paired = self.pairing != "independent"
        if models < 2 or (paired and models % 2):
            raise UsageError(
                f"threat.budget.shadow_models={models}; halves come in pairs: expected an even "
                "number of at least 2, for example threat.budget.shadow_models=16"
            )
        pool = public.auxiliary if self.pairing == "auxiliary" else public.candidates
        if pool is None and self.pairing == "auxiliary" and public.recipe is not None:
            raise NotApplicable(
                "offline shadow models are trained on auxiliary records, and these data keep none; type "
                "data.split=thirds, or mark some: privbench.arrays(x, y, split=parts)"
            )
        if pool is None or pool.y is None or public.recipe is None or public.trainer is None:
            raise NotApplicable(
                "shadow models need labelled "
                f"{'auxiliary records' if self.pairing == 'auxiliary' else 'candidates'} and "
                "the target's recipe; this seat is not granted them: choose threat=released"
            )
        member = random_halves(models, len(pool), child_rng(rng, "halves"), paired)
        rngs = [child_rng(rng, "model", i) for i in range(models)]
        recipe, trainer = public.recipe, public.trainer
        if stackable(recipe, trainer, pool.x.shape[1:]):
            stacked = train_stacked(recipe, pool, member, rngs, knowledge.device)
        else:
            there = pool.to(knowledge.device)
            workers = knowledge.workers if there.x.device.type == "cpu" else 1
            stacked = _apart(recipe, trainer, there, member, rngs, workers)
        return Fitted(
            {"member": member} | {_PARAM + k: v for k, v in stacked.tensors.items()},
            {
                "models": models,
                "records": int(member[0].sum()),
                "pairing": self.pairing,
                "signature": recipe.signature,
            },
        )


def random_halves(
    models: int, records: int, rng: torch.Generator, paired: bool = True
) -> Bool[Tensor, "models records"]:
    """Who is in which model.

    Args:
        paired: models 2i and 2i+1 are in opposite halves; else each half is drawn alone.
    """
    member = torch.zeros(models, records, dtype=torch.bool)
    for model in range(models):
        if paired and model % 2:
            member[model] = ~member[model - 1]
        else:
            member[model, torch.randperm(records, generator=rng)[: records // 2]] = True
    return member


def shadow_logits(
    fitted: Fitted, net: Net, x: Float[Tensor, "n ..."]
) -> Float[Tensor, "models n classes"]:
    """The answers of every shadow model to the same inputs, in eval mode, on the device of ``x``.

    Args:
        fitted: from ``ShadowModels``.
        net: the architecture (its weights do not matter).
    """
    return torch.stack(list(shadow_answers(fitted, net, x)))


def shadow_answers(
    fitted: Fitted, net: Net, x: Float[Tensor, "n ..."]
) -> Iterator[Float[Tensor, "n classes"]]:
    """The same, model by model, which takes memory for one."""
    module = Net(net.spec).module().to(x.device)
    for each in shadow_states(fitted):
        state = {name: tensor.to(x.device) for name, tensor in each.items()}
        with torch.no_grad():
            parts = [torch.func.functional_call(module, state, (p,)) for p in x.split(_PART)]
        yield torch.cat(parts)


def shadow_states(fitted: Fitted) -> list[dict[str, Tensor]]:
    """The state dict of every shadow model."""
    named = {k.removeprefix(_PARAM): v for k, v in fitted.tensors.items() if k.startswith(_PARAM)}
    models = len(fitted.tensors["member"])
    return [{name: tensor[model] for name, tensor in named.items()} for model in range(models)]


def check_recipe(fitted: Fitted, recipe: Recipe | None) -> None:
    """Refuse shadow models of another recipe than the target's.

    Raises:
        UsageError: signatures differ.
    """
    ours, theirs = fitted.facts.get("signature"), None if recipe is None else recipe.signature
    if ours != theirs:
        raise UsageError(
            f"the shadow models follow recipe {ours}, the target was trained by recipe {theirs}; "
            "expected one signature: train the shadow models anew (again=true)"
        )


def _apart(
    recipe: Recipe,
    trainer: str,
    pool: Samples,
    member: Bool[Tensor, "models n"],
    rngs: list[torch.Generator],
    workers: int,
) -> Stacked:
    """The road for every recipe that cannot be stacked: the target's own trainer, called again."""
    train = load_name(trainer)

    def state(model: int) -> State:
        trained: Net = train(recipe, pool[member[model]], rngs[model])
        return trained.weights or {}

    states = side_by_side(state, len(rngs), workers)
    return Stacked({name: torch.stack([s[name] for s in states]) for name in states[0]})
