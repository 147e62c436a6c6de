"""Membership from updates and gradients, by a classifier that learned on simulated ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from privbench.contract import (
    Attack,
    MembershipGuess,
    Recipe,
    Samples,
    View,
    augmented,
    child_rng,
    counted,
)
from privbench.errors import NotApplicable
from privbench.toolkit.evidence import auxiliary_of, labelled
from privbench.toolkit.features import record_gradients, unexplained
from privbench.toolkit.logistic import fit_logistic
from privbench.toolkit.settings import above, at_least
from privbench.toolkit.updates import by_step, flat_gradients, step_length


class _Told(NamedTuple):
    """Features of records beside gradients, ``(gradients, records, features)``, and who is behind which."""

    features: Float[Tensor, "gradients records features"]
    member: Bool[Tensor, "gradients records"]


@dataclass(frozen=True, kw_only=True)
class GradientClassifier(Attack):
    """Simulates batches of auxiliary records, and learns what a gradient shows of those that are in it.

    L. Melis, C. Song, E. De Cristofaro, V. Shmatikov: Exploiting Unintended Feature Leakage in Collaborative
    Learning, IEEE S&P 2019, https://arxiv.org/abs/1805.04049: from the models of the rounds, gradients of
    batches with and without are simulated, and a classifier learns to tell them.

    We differ: theirs tells batches with a property from batches without. One classifier, a logistic
    regression, serves all records here, and sees how a record's own gradient lies to the one that was sent,
    tensor by tensor, before and after what other auxiliary records explain is taken off. A record is
    behind one sender of a step at most, so that their odds are added; those of steps are multiplied.

    A client's local steps are simulated. Its noise, where it adds some, is not.

    Args:
        simulations: gradients simulated for each step.
        ridge: see ``privbench.toolkit.features.unexplained``.
        references: most auxiliary records; half of them are simulated with, and explained by the others.

    Example::

        privbench regime=fedavg threat=server attack=gradient_classifier
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "recipe",
        "model_weights|stale_weights|initial_weights",
    )
    reads: ClassVar[tuple[str, ...]] = (
        "update",
        "stem_gradient",
        "tail_gradient",
        "global_weights",
        "stem_weights",
        "tail_weights",
    )
    source: ClassVar[str] = (
        "L. Melis, C. Song, E. De Cristofaro, V. Shmatikov, Exploiting Unintended Feature Leakage in "
        "Collaborative Learning, 2019, https://arxiv.org/abs/1805.04049"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"simulations": 8})

    simulations: int = 16
    ridge: float = 0.01
    references: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "simulations")
        at_least(self, 4, "references")
        above(self, 0, "ridge")

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by its summed log-odds.

        Raises:
            NotApplicable: fewer than four auxiliary records, no labelled candidates, or no gradient of others
                that the seat can place in the whole network.
        """
        candidates = labelled(view, "gradient_classifier")
        auxiliary = auxiliary_of(view, "gradient_classifier")
        order = torch.randperm(len(auxiliary), generator=child_rng(rng, "references"))
        auxiliary = auxiliary[order[: self.references]]
        if len(auxiliary) < 4:
            raise NotApplicable(
                f"gradient_classifier simulates with auxiliary records, and {len(auxiliary)} are too few; "
                "give at least 4"
            )
        module = view.topology.net.module().to(view.device)
        learned, asked = list[_Told](), list[Tensor]()
        for number, (names, told) in enumerate(counted(by_step(view))):
            module.load_state_dict(dict(told[0].weights))
            step = _Step(module, names, view, self.ridge)
            gradients = torch.cat(list(step.own(auxiliary)))
            drawn = torch.arange(len(auxiliary)) < len(auxiliary) // 2
            sizes = sorted(len(each.rows) for each in told)
            size = min(max(sizes[len(sizes) // 2], 1), max(1, int(drawn.sum()) // 2))
            draw = child_rng(rng, "batches", number)
            member = _batches(self.simulations, int(drawn.sum()), size, draw)
            sent = _simulated(
                module,
                auxiliary[drawn],
                member,
                names,
                view.public.recipe,
                child_rng(draw, "copies"),
            )
            found = step.features(iter((gradients[drawn],)), sent, gradients[~drawn])
            learned.append(_Told(found, member))
            told_apart = step.features(step.own(candidates), flat_gradients(told, names), gradients)
            asked.append(told_apart)
        return MembershipGuess(_odds(learned, asked))


@dataclass(frozen=True, eq=False)
class _Step:
    """The network at one step, and the parameters whose gradients are told of it."""

    module: nn.Module
    names: tuple[str, ...]
    view: View
    ridge: float

    def own(self, records: Samples) -> Iterator[Float[Tensor, "rows numbers"]]:
        """Gradients of single records."""
        return record_gradients(
            self.module, records, self.names, self.view.device, self.view.public.recipe
        )

    def features(
        self,
        own: Iterator[Float[Tensor, "rows numbers"]],
        sent: Float[Tensor, "gradients numbers"],
        known: Float[Tensor, "m numbers"],
    ) -> Float[Tensor, "gradients records features"]:
        """Cosines, tensor by tensor and whole, each in units of its spread over records.

        Args:
            own: gradients of the records that are asked about.
            sent: what they may be behind.
            known: gradients of other records, which explain some of it.
        """
        parameters = dict(self.module.named_parameters())
        widths = [parameters[name].numel() for name in self.names]
        rest = unexplained(sent, known, self.ridge)
        sides = [(whole, *whole.split(widths, dim=1)) for whole in (sent, rest)]
        found = [
            torch.stack(
                [
                    _cosines(part, seen)
                    for side in sides
                    for part, seen in zip((mine, *mine.split(widths, dim=1)), side, strict=True)
                ],
                dim=2,
            )
            for mine in own
        ]
        every = torch.cat(found, dim=1)
        spread = every.std(dim=1, keepdim=True).clamp(min=1e-12)
        return (every - every.mean(dim=1, keepdim=True)) / spread


def _odds(learned: Sequence[_Told], asked: Sequence[Tensor]) -> Float[Tensor, " records"]:
    """Summed log-odds of each record, by a classifier for each number of features that there is."""
    total = torch.zeros(asked[0].shape[1], dtype=torch.float64)
    for width in sorted({each.shape[2] for each in asked}):
        alike = [each for each in learned if each.features.shape[2] == width]
        model = fit_logistic(
            torch.cat([each.features.flatten(0, 1) for each in alike]),
            torch.cat([each.member.flatten() for each in alike]),
        )
        for each in asked:
            if each.shape[2] == width:
                odds = model(each.flatten(0, 1)).reshape(each.shape[:2])
                total += odds.logsumexp(dim=0)
    return total


def _batches(
    count: int, records: int, size: int, rng: torch.Generator
) -> Bool[Tensor, "count records"]:
    """Which records are in each simulated batch."""
    ranks = torch.rand(count, records, generator=rng).argsort(dim=1).argsort(dim=1)
    return ranks < size


def _simulated(
    module: nn.Module,
    records: Samples,
    member: Bool[Tensor, "count records"],
    names: Sequence[str],
    recipe: Recipe | None,
    rng: torch.Generator,
) -> Float[Tensor, "count numbers"]:
    """The mean gradient of each batch on the way through a client's local steps; of one step, if plain.

    Args:
        rng: draws the copies that are learned from, where the recipe augments records.
    """
    rate = step_length(recipe)
    federation = None if recipe is None else recipe.federation
    steps = 1 if federation is None or rate is None else federation.local_steps
    start = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    parameters, found = dict(module.named_parameters()), []
    device = next(iter(parameters.values())).device
    records = records.to(str(device))
    for number, chosen in enumerate(member):
        total = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
        parts = [part for part in chosen.nonzero().flatten().tensor_split(steps) if len(part)]
        for local, part in enumerate(parts):
            batch = records[part]
            if recipe is not None:
                batch = augmented(recipe, batch, part, child_rng(rng, number), local)
            loss = F.cross_entropy(module(batch.x), _labels(batch))
            for name, slope in zip(
                parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True
            ):
                total[name] += slope / len(parts)
                if len(parts) > 1:
                    parameters[name].data.sub_(slope, alpha=rate or 0.0)
        module.load_state_dict(start)
        found.append(torch.cat([total[name].flatten() for name in names]).double().cpu())
    return torch.stack(found)


def _labels(records: Samples) -> Tensor:
    if records.y is None:
        raise NotApplicable("gradients are simulated on labelled records, and these have no labels")
    return records.y


def _cosines(mine: Tensor, sent: Tensor) -> Float[Tensor, "gradients records"]:
    length = mine.norm(dim=1) * sent.norm(dim=1)[:, None]
    return sent @ mine.T / length.clamp(min=1e-30)
