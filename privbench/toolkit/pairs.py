"""Pairs of an input and what a seat sees of it, from wherever the seat gets them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Pairs, Samples, View, child_rng
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import Prefix, Prefixes
from privbench.toolkit.traffic import Seen, defended, selected

ALL = -1  # stands for every step, where pairs of all steps are one set


@dataclass(frozen=True, eq=False)
class Drawn:
    """Some pairs: what would be seen of ``x``."""

    seen: Float[Tensor, "n units ..."]
    x: Float[Tensor, "n ..."]


class PairSource(ABC):
    """Pairs by step: weights change, and with them what is seen of an input."""

    steps: tuple[int, ...]
    """Steps that can be told apart; ``(ALL,)`` = none can."""

    @abstractmethod
    def count(self, step: int) -> int:
        """How many there are at one of ``steps``."""

    @abstractmethod
    def draw(self, step: int, index: Int64[Tensor, " n"], rng: torch.Generator) -> Drawn:
        """Some of them.

        Args:
            index: which, below ``count(step)``.
            rng: of the noise of defenses that they pass.
        """


def pair_source(view: View, seen: Seen, prefixes: Prefixes) -> PairSource:
    """The pairs of a seat for one part of what it saw, by ``view.seat.pairs``.

    ``own`` and ``chosen``: its own samples as it saw them cross, at all steps; ``query``: answers of an
    oracle; ``prefix``: auxiliary inputs through the layers before it.

    Raises:
        NotApplicable: the seat lacks what its kind of pairs needs.
    """
    way = view.seat.pairs
    steps = tuple(view.victims[seen.victims, 0].unique().tolist())
    if way in ("own", "chosen"):
        return _Own(view, seen)
    if way == "query":
        return _Queries(view, seen, steps)
    return _Prefixed(view, seen, prefixes, steps)


class _Own(PairSource):
    steps = (ALL,)

    def __init__(self, view: View, seen: Seen) -> None:
        rows = view.own.rows if view.own is not None else torch.empty(0, 2, dtype=torch.int64)
        at = seen.find(rows)
        if view.own is None or int((at >= 0).sum()) < 2:
            raise NotApplicable(
                f"'{view.seat.name}' fits its decoder on own samples and saw fewer than two of them "
                f"cross at layer '{seen.layer.name}'; set threat.steps=all"
            )
        self._seen = seen.seen.payload[at[at >= 0]].float()
        self._x = view.own.samples.x[at >= 0]

    def count(self, step: int) -> int:
        return len(self._x)

    def draw(self, step: int, index: Int64[Tensor, " n"], rng: torch.Generator) -> Drawn:
        return Drawn(self._seen[index], self._x[index])


class _Queries(PairSource):
    def __init__(self, view: View, seen: Seen, steps: tuple[int, ...]) -> None:
        self.steps, self._view, self._part = steps, view, seen
        self._asked = [each for each in view.pairs if each.layer == seen.layer.name]
        if not self._asked:
            raise NotApplicable(
                f"no oracle answered for layer '{seen.layer.name}'; choose a seat with pairs=query"
            )

    def _nearest(self, step: int) -> Pairs:
        return min(self._asked, key=lambda each: (abs(each.step - step), each.step))

    def count(self, step: int) -> int:
        return len(self._nearest(step).x)

    def draw(self, step: int, index: Int64[Tensor, " n"], rng: torch.Generator) -> Drawn:
        pairs = self._nearest(step)
        sent = as_sent(self._view, self._part, pairs.activation[index].float(), step, rng)
        return Drawn(sent, pairs.x[index])


class _Prefixed(PairSource):
    def __init__(self, view: View, seen: Seen, prefixes: Prefixes, steps: tuple[int, ...]) -> None:
        self.steps, self._view, self._part = steps, view, seen
        self._auxiliary = pushed(view, seen)
        self._prefix: dict[int, Prefix] = {
            step: prefixes.at(seen.layer.name, step) for step in steps
        }

    def count(self, step: int) -> int:
        return len(self._auxiliary)

    def draw(self, step: int, index: Int64[Tensor, " n"], rng: torch.Generator) -> Drawn:
        x = self._auxiliary.x[index]
        with torch.no_grad():
            whole = self._prefix[step](x.to(self._view.device)).cpu()
        return Drawn(as_sent(self._view, self._part, whole, step, rng), x)


def pushed(view: View, seen: Seen) -> Samples:
    """The auxiliary records that a seat pushes through the layers before it, to see what it would see.

    Raises:
        NotApplicable: there are none, or what it sees is not of one layer alone.
    """
    auxiliary = view.public.auxiliary
    if auxiliary is None or not len(auxiliary):
        raise NotApplicable(
            "pairs by prefix weights need auxiliary inputs to push through; choose a split that has some "
            "(data.split=thirds)"
        )
    if seen.kind != "activation":
        raise NotApplicable(
            f"'{view.seat.name}' sees partial sums of layer '{seen.layer.name}' alone, which weights of "
            "other hosts entered; prefix pairs tell nothing of these"
        )
    return auxiliary


def as_sent(
    view: View, seen: Seen, whole: Float[Tensor, "n channels ..."], step: int, rng: torch.Generator
) -> Float[Tensor, "n units ..."]:
    """What a seat would see of a layer's whole output, after the defenses in force."""
    sent = defended(view.topology, seen.layer, whole, step, rng)
    return selected(sent, seen.seen.units)


def input_shape(view: View) -> tuple[int, ...]:
    """Shape of one input, from whatever inputs a seat holds.

    Raises:
        NotApplicable: it holds none.
    """
    held = [view.public.auxiliary.x] if view.public.auxiliary is not None else []
    held += [view.own.samples.x] if view.own is not None else []
    held += [pairs.x for pairs in view.pairs]
    if not held:
        raise NotApplicable(
            f"'{view.seat.name}' (pairs={view.seat.pairs}) holds no input at all, so that the shape "
            "of one is unknown to it; a split with auxiliary records gives some (data.split=thirds)"
        )
    return tuple(held[0].shape[1:])


def split_off(
    count: int, share: float, rng: torch.Generator
) -> tuple[Int64[Tensor, " fitted"], Int64[Tensor, " held"]]:
    """Positions to fit on, and others to judge by: at least one of each, of two or more."""
    order = torch.randperm(count, generator=child_rng(rng, "held"))
    held = min(max(1, round(share * count)), count - 1)
    return order[held:], order[:held]
