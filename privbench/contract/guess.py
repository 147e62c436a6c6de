"""What an attack answers. Shape, range and finiteness are checked when a guess is made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.errors import PluginError


def _finite(what: str, tensor: Tensor) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise PluginError(f"{what} hold NaN or infinite values; expected finite numbers")


@dataclass(frozen=True, eq=False)
class MembershipGuess:
    """One score a candidate, in the candidates' order; higher = more likely a member.

    ``threshold``, where the attack can fix one beforehand (from shadow models), says above which
    score it would answer "member"; balanced accuracy is measured there.

    ``exposure``, where shadow models tell, ranks candidates by how much a model like the target would
    say of each being in it or not, higher = more; settled before the target is asked, so that the most
    exposed can be judged by themselves.
    """

    scores: Float[Tensor, " candidates"]
    threshold: float | None = None
    exposure: Float[Tensor, " candidates"] | None = None

    def __post_init__(self) -> None:
        if self.scores.ndim != 1:
            raise PluginError(
                f"membership scores have shape (candidates,), got {tuple(self.scores.shape)}"
            )
        _finite("membership scores", self.scores)
        if self.exposure is not None:
            if self.exposure.shape != self.scores.shape:
                raise PluginError(
                    f"exposure ranks every candidate: expected shape {tuple(self.scores.shape)}, got "
                    f"{tuple(self.exposure.shape)}"
                )
            _finite("exposures", self.exposure)


@dataclass(frozen=True, eq=False)
class ReconstructionGuess:
    """Rebuilt inputs, one for each row that is named.

    Args:
        rows: (step, index) of each guess.
        x: guesses in [0, 1], clipped when made; same shape as the samples.
        groups: guesses of one group are for *some* rows of the same group, in unknown order
            (the scorer matches them); None = each guess is for its own row.
    """

    rows: Int64[Tensor, "n 2"]
    x: Float[Tensor, "n ..."]
    groups: Int64[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != 2 or len(self.rows) != len(self.x):
            raise PluginError(
                "a reconstruction names one (step, index) row for each guess: expected rows (n, 2) "
                f"and x (n, ...), got {tuple(self.rows.shape)} and {tuple(self.x.shape)}"
            )
        if self.groups is not None and self.groups.shape != (len(self.x),):
            raise PluginError(
                f"groups have shape (n,) = ({len(self.x)},), got {tuple(self.groups.shape)}"
            )
        _finite("reconstructed inputs", self.x)
        object.__setattr__(self, "x", self.x.clamp(0.0, 1.0))


@dataclass(frozen=True, eq=False)
class InversionGuess:
    """One input for each class, in [0, 1] (clipped when made): what the model takes for it."""

    x: Float[Tensor, "classes ..."]

    def __post_init__(self) -> None:
        _finite("inverted inputs", self.x)
        object.__setattr__(self, "x", self.x.clamp(0.0, 1.0))


@dataclass(frozen=True, eq=False)
class LabelGuess:
    """Labels of the samples behind rows, one for each row that is named.

    Args:
        rows: (step, index) of each guess.
        labels: numbers of classes, from 0.
        groups: labels of one group are for *some* rows of the same group, in unknown order (the
            scorer matches them); None = each label is for its own row.
    """

    rows: Int64[Tensor, "n 2"]
    labels: Int64[Tensor, " n"]
    groups: Int64[Tensor, " n"] | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        shapes = tuple(self.rows.shape), tuple(self.labels.shape)
        if shapes != ((n, 2), (n,)):
            raise PluginError(
                "labels are guessed one for each (step, index) row: expected rows (n, 2) and labels "
                f"(n,), got {shapes[0]} and {shapes[1]}"
            )
        if self.labels.dtype != torch.int64 or (n and int(self.labels.min()) < 0):
            raise PluginError(
                f"labels are numbers of classes from 0 (int64), got {self.labels.dtype}"
                + (f" from {self.labels.min()}" if n else "")
            )
        if self.groups is not None and self.groups.shape != (n,):
            raise PluginError(f"groups have shape (n,) = ({n},), got {tuple(self.groups.shape)}")


Guess = MembershipGuess | ReconstructionGuess | InversionGuess | LabelGuess

GUESS_OF_GOAL: dict[str, type] = {
    "membership": MembershipGuess,
    "recurrence": MembershipGuess,
    "reconstruction": ReconstructionGuess,
    "inversion": InversionGuess,
    "label": LabelGuess,
    "audit": MembershipGuess,
}
"""The guess that each goal asks for; in an audit of every step one score an observation, in recurrence one
a pair of rows (victims 2i and 2i + 1), higher = more likely one sample."""
