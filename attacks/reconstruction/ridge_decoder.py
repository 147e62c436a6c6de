"""Decode activations by a linear map fitted in closed form."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, Guess, ReconstructionGuess, View, child_rng
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import Prefix, Prefixes
from privbench.toolkit.priors import expected
from privbench.toolkit.ridge import Ridge, fit_ridge
from privbench.toolkit.traffic import Seen, defended, seen_of_victims, selected

Decoders = dict[str, Ridge]


@dataclass(frozen=True, kw_only=True)
class RidgeDecoder(Attack):
    """The best linear map, in the least-squares sense, from what a seat sees back to the input.

    A. E. Hoerl, R. W. Kennard: Ridge Regression: Biased Estimation for Nonorthogonal Problems,
    Technometrics 1970, https://doi.org/10.1080/00401706.1970.10488634, as the decoder of
    Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
    https://doi.org/10.1145/3359789.3359824.

    We differ: their decoder is an inverse network trained by gradient descent; ours is linear and
    solved at once, and under message defenses it is fitted on pairs that passed the same defenses.

    Where its pairs come from is the seat's to say: ``prefix``, auxiliary inputs through the layers
    before it, one decoder a step; ``query``, answers of an oracle at each step; ``own`` and
    ``chosen``, its own samples as it saw them cross, one decoder for all steps. It reads the
    shallowest layer of which it sees victims.

    Example::

        privbench regime=slicenet threat=host attack=ridge_decoder
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("pairs",)
    reads: ClassVar[tuple[str, ...]] = ("activation", "partial_sum")
    source: ClassVar[str] = (
        "A. E. Hoerl, R. W. Kennard, Ridge Regression: Biased Estimation for Nonorthogonal "
        "Problems, 1970, https://doi.org/10.1080/00401706.1970.10488634"
    )

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An image for each victim; the mean auxiliary image for one that was not seen.

        Raises:
            NotApplicable: the seat lacks what its kind of pairs needs.
        """
        return _decoded(view, rng, {})

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """Seats that see the same units under the same weights share their decoders."""
        decoders: Decoders = {}
        return [_decoded(view, child_rng(rng, view.seat.name), decoders) for view in views]


def _decoded(view: View, rng: torch.Generator, decoders: Decoders) -> ReconstructionGuess:
    shape = _shape(view)
    guess = expected(view.public, shape).repeat(len(view.victims), *(1 for _ in shape))
    seen = seen_of_victims(view)
    if seen is None:
        return ReconstructionGuess(view.victims, guess)
    at = seen.find(view.victims)
    fitted: dict[int, Ridge] = {}
    steps = view.victims[:, 0]
    for step in torch.unique(steps[at >= 0]).tolist():
        here = (steps == step) & (at >= 0)
        decoder = _decoder(view, seen, step, fitted, decoders, rng)
        features = seen.seen.payload[at[here]].flatten(1)
        guess[here] = decoder(features.to(view.device)).float().cpu().reshape(-1, *shape)
    return ReconstructionGuess(view.victims, guess)


def _shape(view: View) -> tuple[int, ...]:
    """Shape of one input, from whatever inputs the seat holds."""
    held = [view.public.auxiliary.x] if view.public.auxiliary is not None else []
    held += [view.own.samples.x] if view.own is not None else []
    held += [pairs.x for pairs in view.pairs]
    if not held:
        raise NotApplicable(
            f"a decoder needs inputs to be fitted on; the pairs of '{view.seat.name}' "
            f"(pairs={view.seat.pairs}) come without any: a split with auxiliary records gives "
            "some (data.split=thirds)"
        )
    return tuple(held[0].shape[1:])


def _decoder(
    view: View,
    seen: Seen,
    step: int,
    fitted: dict[int, Ridge],
    decoders: Decoders,
    rng: torch.Generator,
) -> Ridge:
    """The decoder for victims of one step, fitted when first asked for."""
    way = view.seat.pairs
    if way in ("own", "chosen"):
        if -1 not in fitted:  # one for all steps
            fitted[-1] = _from_own(view, seen)
        return fitted[-1]
    if way == "query":
        if step not in fitted:
            fitted[step] = _from_queries(view, seen, step, rng)
        return fitted[step]
    if step not in fitted:
        fitted[step] = _from_prefix(view, seen, step, decoders, rng)
    return fitted[step]


def _from_own(view: View, seen: Seen) -> Ridge:
    """Own samples with what was seen of them, at all steps."""
    if view.own is None or not len(view.own.rows):
        raise NotApplicable(
            f"'{view.seat.name}' fits its decoder on own samples and none of them crossed in the "
            "steps it looks at; set threat.steps=all"
        )
    at = seen.find(view.own.rows)
    if int((at >= 0).sum()) < 2:
        raise NotApplicable(
            f"'{view.seat.name}' saw fewer than two of its own samples at layer "
            f"'{seen.layer.name}', too few to fit a decoder on; set threat.steps=all"
        )
    x = view.own.samples.x[at >= 0]
    return _fit(view, seen.features(view.own.rows), x)


def _from_queries(view: View, seen: Seen, step: int, rng: torch.Generator) -> Ridge:
    """What an oracle answered at the nearest step."""
    pairs = [each for each in view.pairs if each.layer == seen.layer.name]
    if not pairs:
        raise NotApplicable(
            f"no oracle answered for layer '{seen.layer.name}'; choose a seat with pairs=query"
        )
    nearest = min(pairs, key=lambda each: (abs(each.step - step), each.step))
    sent = defended(view.topology, seen.layer, nearest.activation, step, _noise(rng, step))
    return _fit(view, selected(sent, seen.seen.units).flatten(1), nearest.x)


def _from_prefix(
    view: View, seen: Seen, step: int, decoders: Decoders, rng: torch.Generator
) -> Ridge:
    """Auxiliary inputs through the layers before the seat, with the weights of that step."""
    auxiliary = view.public.auxiliary
    if auxiliary is None or not len(auxiliary):
        raise NotApplicable(
            "pairs by prefix weights need auxiliary inputs to push through; choose a split that has "
            "some (data.split=thirds)"
        )
    if seen.kind != "activation":
        raise NotApplicable(
            f"'{view.seat.name}' sees partial sums of layer '{seen.layer.name}' alone, which weights "
            "of other hosts entered; prefix pairs tell nothing of these"
        )
    prefix = Prefixes(view.topology, view.weights).at(seen.layer.name, step)
    key = _digest(prefix, seen, auxiliary.x)
    if key in decoders and not view.topology.defenses:
        return decoders[key]
    with torch.no_grad():
        whole = prefix(auxiliary.x.to(view.device)).cpu()
    sent = defended(view.topology, seen.layer, whole, step, _noise(rng, step))
    decoder = _fit(view, selected(sent, seen.seen.units).flatten(1), auxiliary.x)
    if not view.topology.defenses:  # else its noise is this seat's own
        decoders[key] = decoder
    return decoder


def _fit(view: View, features: Float[Tensor, "n p"], x: Float[Tensor, "n ..."]) -> Ridge:
    return fit_ridge(features.to(view.device), x.flatten(1).to(view.device))


def _noise(rng: torch.Generator, step: int) -> torch.Generator:
    return child_rng(rng, "pairs", step)


def _digest(prefix: Prefix, seen: Seen, x: Tensor) -> str:
    """What a decoder is made of: weights, layer, units and inputs."""
    found = hashlib.sha256(f"{seen.layer.name} {seen.seen.units}".encode())
    for tensor in (*prefix.state.values(), x):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
