"""What a target and its shadow models say of labelled records: all that likelihood ratios are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from privbench.contract import Fitted, Samples, View
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit.answers import choices, log_probabilities
from privbench.toolkit.densities import FLOOR, confidence
from privbench.toolkit.priors import is_image
from privbench.toolkit.shadows import check_recipe, shadow_answers

MOST_QUERIES = 10  # the record, its mirror image, and both moved by a pixel each way


@dataclass(frozen=True, eq=False)
class Evidence:
    """Answers about some records, float64 on the CPU.

    Args:
        confidence: logit-scaled confidence of the target in each record's label.
        log_p: its log-probability of the label, at least ``FLOOR``.
        shadow_confidence, shadow_log_p: the same of every shadow model.
        member: which shadow model was trained on which of these records.
    """

    confidence: Float[Tensor, " n"]
    log_p: Float[Tensor, " n"]
    shadow_confidence: Float[Tensor, "models n"]
    shadow_log_p: Float[Tensor, "models n"]
    member: Bool[Tensor, "models n"]

    def exposure(self) -> Float[Tensor, " n"]:
        """How much a record's being trained on moves shadow models' confidence in it, on average.

        Where none was trained on it: how little they expect its label, since what models do not
        expect they learn by heart. The target is not asked.
        """
        inside = self.member.sum(dim=0)
        outside = (~self.member).sum(dim=0)
        out = (self.shadow_confidence * ~self.member).sum(dim=0) / outside.clamp(min=1)
        if not bool(((inside > 0) & (outside > 0)).all()):
            return -out
        return (self.shadow_confidence * self.member).sum(dim=0) / inside - out


def labelled(view: View, attack: str) -> Samples:
    """The seat's candidates, with labels.

    Raises:
        NotApplicable: it has none.
    """
    candidates = view.public.candidates
    if candidates is None or candidates.y is None:
        raise NotApplicable(
            f"{attack} needs labelled candidates; choose threat=released or threat=api"
        )
    return candidates


def auxiliary_of(view: View, attack: str) -> Samples:
    """Its auxiliary records, with labels.

    Raises:
        NotApplicable: it has none.
    """
    auxiliary = view.public.auxiliary
    if auxiliary is None or auxiliary.y is None or not len(auxiliary):
        raise NotApplicable(
            f"{attack} needs labelled auxiliary records, and this split has none; choose one that has "
            "(data.split=thirds)"
        )
    return auxiliary


def right_choices(view: View, samples: Samples, x: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """1 where the model's first choice for an input is the record's label, else 0.

    Args:
        samples: whose labels are meant.
        x: the records, or noisy copies of them.
    """
    if samples.y is None:
        raise NotApplicable("right and wrong need labels, and these records have none")
    return torch.eq(choices(view, x), samples.y).double()


def shadows_of(view: View, attack: str) -> Fitted:
    """Its shadow models, which follow the target's recipe.

    Raises:
        NotApplicable: there are none.
        UsageError: they follow another recipe.
    """
    if not view.fitted:
        raise NotApplicable(f"{attack} needs fitted shadow models; choose threat=released")
    check_recipe(view.fitted[0], view.public.recipe)
    return view.fitted[0]


def gathered(
    view: View, fitted: Fitted, samples: Samples, queries: int = 1, known: bool = True
) -> Evidence:
    """Ask the target and every shadow model about records.

    Args:
        samples: labelled.
        queries: copies of each record that are asked about (see ``variants``); answers are averaged.
        known: ``samples`` are the pool that the shadow models were trained on halves of; else none was
            trained on any of them.

    Raises:
        UsageError: so many queries make no sense for such records.
    """
    if samples.y is None:
        raise NotApplicable("a likelihood needs labels, and these records have none")
    y, found = samples.y, []
    for x in variants(samples.x, queries):
        target = log_probabilities(view, x)
        answers = shadow_answers(fitted, view.topology.net, x.to(view.device))
        shadows = torch.stack([confidence(a.nan_to_num(nan=0.0), y).cpu() for a in answers])
        found.append(
            (
                confidence(target, y),
                target.gather(1, y[:, None]).squeeze(1).clamp(min=FLOOR),
                shadows,
                logsigmoid(shadows),
            )
        )
    sure, log_p, shadows_sure, shadow_log_p = (
        torch.stack(each).mean(dim=0) for each in zip(*found, strict=True)
    )
    member = fitted.tensors["member"]
    outside = torch.zeros(len(member), len(samples), dtype=torch.bool)
    return Evidence(sure, log_p, shadows_sure, shadow_log_p, member if known else outside)


def variants(x: Float[Tensor, "n ..."], queries: int) -> list[Float[Tensor, "n ..."]]:
    """The records, and copies of them that look the same to a classifier of images.

    In order: as they are, mirrored, then both moved by one pixel left, right, up and down, as in
    Carlini et al., "Membership Inference Attacks From First Principles", 2022,
    https://arxiv.org/abs/2112.03570.

    Raises:
        UsageError: more than one, and these are no images; or more than there are.
    """
    if type(queries) is not int or not 1 <= queries <= MOST_QUERIES:
        raise UsageError(
            f"attack.queries={queries}; expected a whole number from 1 to {MOST_QUERIES}"
        )
    if queries > 1 and not is_image(x.shape[1:]):
        raise UsageError(
            f"attack.queries={queries} asks about mirrored and moved images, and records of shape "
            f"{tuple(x.shape[1:])} are none; type attack.queries=1"
        )
    moves = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]
    both = (x, x.flip(-1)) if queries > 1 else (x,)
    found = [each if move == (0, 0) else moved(each, *move) for move in moves for each in both]
    return found[:queries]


def moved(x: Float[Tensor, "n c h w"], down: int, right: int) -> Float[Tensor, "n c h w"]:
    """Images shifted by a pixel; what comes in at the border repeats it."""
    rows = (torch.arange(x.shape[-2]) - down).clamp(0, x.shape[-2] - 1)
    columns = (torch.arange(x.shape[-1]) - right).clamp(0, x.shape[-1] - 1)
    return x[..., rows, :][..., columns]
