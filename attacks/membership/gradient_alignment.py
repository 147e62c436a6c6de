"""Membership from updates and gradients: is this record's own gradient a part of what was sent?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, View, child_rng, counted
from privbench.toolkit.evidence import auxiliary_of, labelled
from privbench.toolkit.features import record_gradients, unexplained
from privbench.toolkit.settings import above, at_least
from privbench.toolkit.updates import by_step, flat_gradients


@dataclass(frozen=True, kw_only=True)
class GradientAlignment(Attack):
    """The gradient of a record that an update was computed from points along it.

    J. Li, N. Li, B. Ribeiro: Effective Passive Membership Inference Attacks in Federated Learning against
    Overparameterized Models, ICLR 2023, https://openreview.net/forum?id=QsCSLPP55Ku (cosine).

    We differ: what gradients of auxiliary records explain of an update is taken off first, by ridge
    regression. All records of a class push the same way, and beside that the cosine says little; what is
    left is what these very records added. Over senders of a step the largest cosine counts, over steps
    the sum, each in units of its spread over candidates. Where the recipe augments records, a record's
    gradient is the mean over the copies that it can make.

    Args:
        ridge: penalty, in units of the mean squared norm of an auxiliary record's gradient.
        references: most auxiliary records; their gradients are held in memory at once.

    Example::

        privbench regime=fedavg threat=server attack=gradient_alignment
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
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
        "J. Li, N. Li, B. Ribeiro, Effective Passive Membership Inference Attacks in Federated Learning "
        "against Overparameterized Models, 2023, https://openreview.net/forum?id=QsCSLPP55Ku"
    )

    ridge: float = 0.01
    references: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "references")
        above(self, 0, "ridge")

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the summed cosines.

        Raises:
            NotApplicable: no labelled candidates or auxiliary records, or no gradient of others that the
                seat can place in the whole network.
        """
        candidates = labelled(view, "gradient_alignment")
        auxiliary = auxiliary_of(view, "gradient_alignment")
        order = torch.randperm(len(auxiliary), generator=child_rng(rng, "references"))
        auxiliary = auxiliary[order[: self.references]]
        module, recipe = view.topology.net.module().to(view.device), view.public.recipe
        score = torch.zeros(len(candidates), dtype=torch.float64)
        for names, told in counted(by_step(view)):
            module.load_state_dict(dict(told[0].weights))
            known = record_gradients(module, auxiliary, names, view.device, recipe)
            explained = torch.cat(list(known))
            rest = unexplained(flat_gradients(told, names), explained, self.ridge)
            cosines = [
                mine @ rest.T / mine.norm(dim=1, keepdim=True).clamp(min=1e-30)
                for mine in record_gradients(module, candidates, names, view.device, recipe)
            ]
            each = torch.cat(cosines)
            score += (each / each.std(dim=0).clamp(min=1e-30)).amax(dim=1)
        return MembershipGuess(score)
