"""Decode activations by a linear map fitted in closed form."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, Guess, ReconstructionGuess, View, child_rng, counted
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import Prefix, Prefixes
from privbench.toolkit.priors import expected
from privbench.toolkit.ridge import Ridge, fit_ridge
from privbench.toolkit.traffic import Seen, defended, each_known, seen_of_victims, selected


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
    shallowest layer of which it sees a victim, and has a decoder for each set of units that it sees.

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
        return _Decoding(view, rng, None).guess()

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """Seats that see the same units under the same weights share their decoders."""
        guesses: list[Guess] = []
        before: _Decoding | None = None
        for view in counted(views):
            before = _Decoding(view, child_rng(rng, view.seat.name), before)
            guesses.append(before.guess())
        return guesses


class _Decoding:
    """The work for one seat.

    Args:
        view: of the seat.
        rng: of the defenses' noise.
        before: work for another seat, whose traces and decoders may serve again.
    """

    def __init__(self, view: View, rng: torch.Generator, before: _Decoding | None) -> None:
        self._view, self._rng = view, rng
        like: Prefixes | None = before._prefixes if before is not None else None
        self._prefixes: Prefixes = Prefixes(view.topology, view.weights, like)
        self._shared: dict[str, Ridge] = before._shared if before is not None else {}

    def guess(self) -> ReconstructionGuess:
        """An image for each victim."""
        view, shape = self._view, _shape(self._view)
        guess = expected(view.public, shape).repeat(len(view.victims), *(1 for _ in shape))
        for part, found in each_known(seen_of_victims(view), self._decode):
            guess[part.victims] = found.float().cpu().reshape(-1, *shape)
        return ReconstructionGuess(view.victims, guess)

    def _decode(self, seen: Seen) -> Float[Tensor, "victims pixels"]:
        """What victims were, of which the same units were seen."""
        way = self._view.seat.pairs
        fit = self._from_queries if way == "query" else self._from_prefix
        once = self._from_own(seen) if way in ("own", "chosen") else None
        rows = self._view.victims[seen.victims]
        features = seen.features(rows).to(self._view.device)
        found: list[Tensor] = []
        for step in rows[:, 0].unique().tolist():  # in the order of the rows
            decoder = fit(seen, step) if once is None else once
            found.append(decoder(features[(rows[:, 0] == step).to(features.device)]))
        return torch.cat(found)

    def _from_own(self, seen: Seen) -> Ridge:
        """Own samples with what was seen of them, at all steps."""
        view = self._view
        rows = view.own.rows if view.own is not None else torch.empty(0, 2, dtype=torch.int64)
        at = seen.find(rows)
        if view.own is None or int((at >= 0).sum()) < 2:
            raise NotApplicable(
                f"'{view.seat.name}' fits its decoder on own samples and saw fewer than two of them "
                f"cross at layer '{seen.layer.name}'; set threat.steps=all"
            )
        return self._fit(seen.features(rows), view.own.samples.x[at >= 0])

    def _from_queries(self, seen: Seen, step: int) -> Ridge:
        """What an oracle answered at the nearest step."""
        pairs = [each for each in self._view.pairs if each.layer == seen.layer.name]
        if not pairs:
            raise NotApplicable(
                f"no oracle answered for layer '{seen.layer.name}'; choose a seat with pairs=query"
            )
        nearest = min(pairs, key=lambda each: (abs(each.step - step), each.step))
        return self._fit(self._as_sent(seen, nearest.activation, step), nearest.x)

    def _from_prefix(self, seen: Seen, step: int) -> Ridge:
        """Auxiliary inputs through the layers before the seat, with the weights of that step."""
        auxiliary = self._view.public.auxiliary
        if auxiliary is None or not len(auxiliary):
            raise NotApplicable(
                "pairs by prefix weights need auxiliary inputs to push through; choose a split that "
                "has some (data.split=thirds)"
            )
        if seen.kind != "activation":
            raise NotApplicable(
                f"'{self._view.seat.name}' sees partial sums of layer '{seen.layer.name}' alone, "
                "which weights of other hosts entered; prefix pairs tell nothing of these"
            )
        prefix = self._prefixes.at(seen.layer.name, step)
        key = _digest(prefix, seen, auxiliary.x)
        if key in self._shared and not self._view.topology.defenses:
            return self._shared[key]
        with torch.no_grad():
            whole = prefix(auxiliary.x.to(self._view.device)).cpu()
        decoder = self._fit(self._as_sent(seen, whole, step), auxiliary.x)
        if not self._view.topology.defenses:  # else its noise is this seat's own
            self._shared[key] = decoder
        return decoder

    def _as_sent(self, seen: Seen, whole: Tensor, step: int) -> Float[Tensor, "n features"]:
        """What the seat would see of a layer's whole output, after the defenses."""
        noise = child_rng(self._rng, "pairs", step)
        sent = defended(self._view.topology, seen.layer, whole, step, noise)
        return selected(sent, seen.seen.units).flatten(1)

    def _fit(self, features: Float[Tensor, "n p"], x: Float[Tensor, "n ..."]) -> Ridge:
        device = self._view.device
        return fit_ridge(features.to(device), x.flatten(1).to(device))


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


def _digest(prefix: Prefix, seen: Seen, x: Tensor) -> str:
    """What a decoder is made of: weights, layer, units and inputs."""
    found = hashlib.sha256(f"{seen.layer.name} {seen.seen.units}".encode())
    for tensor in (*prefix.state.values(), x):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
