"""Which guess is for which victim, also where the attack could not know the order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from privbench.data.truth import Truth
from privbench.errors import PluginError

STEP = 1 << 31  # a (step, index) pair as one number

Match = Callable[[Int64[Tensor, " g"], Int64[Tensor, " t"]], Int64[Tensor, " t"]]
"""Of guesses and of positions in ``train``, by number: for each of the latter the place among the
guesses of the one that is for it, -1 = none."""


@dataclass(frozen=True, eq=False)
class Group:
    """Guesses for some of the targets, in unknown order; positions of targets in the victims' list.

    Args:
        guesses: numbers of the guesses.
        targets: positions in the truth's ``train`` of the rows that they can be for.
        victim: for each target its place among the victims, -1 = none.
    """

    guesses: Int64[Tensor, " g"]
    targets: Int64[Tensor, " t"]
    victim: Int64[Tensor, " t"]


@dataclass(frozen=True, eq=False)
class Assigned:
    """For each victim the number of the guess that is for it, -1 = none was made."""

    guess: Int64[Tensor, " victims"]
    groups: tuple[Group, ...] = ()

    @property
    def made(self) -> Bool[Tensor, " victims"]:
        """Which victims were guessed."""
        return self.guess >= 0


def assign(
    rows: Int64[Tensor, "g 2"],
    groups: Int64[Tensor, " g"] | None,
    match: Match,
    victims: Int64[Tensor, "n 2"],
    seen: Int64[Tensor, "m 2"],
    owned: frozenset[int],
    truth: Truth,
) -> Assigned:
    """Find the guess of each victim.

    Guesses without groups are for the row that they name. Guesses of a group are matched, by ``match``,
    to the rows of that group. A group that names one owner's rows (or
    several owners') of a step stands for all rows of theirs (of everybody but the seat) that the seat
    saw in that step and that no other group names, even if it holds fewer guesses than there are rows.

    Raises:
        PluginError: a row is guessed twice, or never was.
    """
    named = _keys(rows)
    if len(named.unique()) != len(named):
        raise PluginError("a row is guessed twice; expected one guess for each (step, index)")
    truth.sample_of(rows)  # refuses rows that never were
    wanted = _keys(victims)
    if groups is None:
        order = named.argsort()
        at = torch.searchsorted(named[order], wanted).clamp(max=max(len(named) - 1, 0))
        if not len(named):
            return Assigned(torch.full((len(wanted),), -1))
        hit = named[order][at] == wanted
        return Assigned(torch.where(hit, order[at], -1))
    found = torch.full((len(wanted),), -1)
    made = []
    everything = torch.unique(torch.cat([seen.reshape(-1, 2), victims, rows]), dim=0)
    sample, keys = truth.sample_of(everything), _keys(everything)
    foreign = ~torch.isin(truth.owners[sample], torch.tensor(sorted(owned), dtype=torch.int64))
    for number in groups.unique().tolist():
        inside = (groups == number).nonzero().flatten()
        open_to_all = _reach(rows[inside], everything, truth.owners[sample], foreign)
        others = named[groups != number]
        is_target = (open_to_all & ~torch.isin(keys, others)) | torch.isin(keys, named[inside])
        place = _places(keys[is_target], wanted)
        group = Group(inside, sample[is_target], place)
        made.append(group)
        chosen = match(inside, group.targets)
        good = (place >= 0) & (chosen >= 0)
        found[place[good]] = inside[chosen[good]]
    return Assigned(found, tuple(made))


def matched(
    guesses: Float[Tensor, "g ..."], targets: Float[Tensor, "t ..."]
) -> Int64[Tensor, " t"]:
    """For each target the guess that is matched to it, at the least total squared error; -1 = none."""
    cost = torch.cdist(guesses.flatten(1).double(), targets.flatten(1).double()).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    found = torch.full((len(targets),), -1)
    found[torch.as_tensor(columns)] = torch.as_tensor(rows)
    return found


def _reach(rows: Tensor, everything: Tensor, owners: Tensor, foreign: Tensor) -> Tensor:
    """Rows that the guesses of a group can be for: of the same steps, and the same owner."""
    same_step = torch.isin(everything[:, 0], rows[:, 0])
    mine = torch.isin(_keys(everything), _keys(rows))
    whose = owners[mine].unique()
    return same_step & (owners == whose[0] if len(whose) == 1 else foreign)


def _places(keys: Tensor, wanted: Tensor) -> Tensor:
    """Where each key stands in ``wanted``, -1 = nowhere."""
    if not len(wanted):
        return torch.full((len(keys),), -1)
    order = wanted.argsort()
    at = torch.searchsorted(wanted[order], keys).clamp(max=len(wanted) - 1)
    return torch.where(wanted[order][at] == keys, order[at], -1)


def _keys(rows: Int64[Tensor, "n 2"]) -> Int64[Tensor, " n"]:
    return rows[:, 0].long() * STEP + rows[:, 1].long()
