"""Was this device in the crowd? Scores of records, put together for those of one owner."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import child_rng
from privbench.scoring import statistics
from privbench.scoring.compared import Compared
from privbench.scoring.power import least_area
from privbench.scoring.score import Score

FEWEST = 2  # devices of either kind below which there is nothing to compare


@dataclass(frozen=True, eq=False)
class Devices:
    """The candidates as sets: those that a device held, and as many that none did.

    Args:
        sets: positions among the candidates, one array a device that took part.
        strangers: the same of devices that did not: non-members, dealt by seed in sets of the same
            sizes and, as far as they reach, the same labels.
    """

    sets: tuple[np.ndarray, ...]
    strangers: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls,
        places: Int64[Tensor, " candidates"],
        owners: Int64[Tensor, " train"],
        labels: Int64[Tensor, " candidates"] | None,
        rng: torch.Generator,
    ) -> Devices | None:
        """From the truth; None where one party, or nobody, owns all records.

        Args:
            places: position of each candidate among the private records; -1 = a non-member.
            owners: of the private records.
            labels: of the candidates.
        """
        if len(owners.unique()) < FEWEST:
            return None
        owner = torch.where(places >= 0, owners[places.clamp(min=0)], -1).numpy()
        sets = [np.flatnonzero(owner == number) for number in np.unique(owner[owner >= 0])]
        kinds = np.zeros(len(places), dtype=np.int64) if labels is None else labels.numpy()
        draw = statistics.numpy_rng(child_rng(rng, "devices"))
        free = draw.permutation(np.flatnonzero(owner < 0))
        strangers = []
        for held in sets:
            dealt = _alike(kinds[held], kinds[free])
            strangers.append(free[dealt])
            free = np.delete(free, dealt)
        whole = [n for n, held in enumerate(sets) if len(strangers[n]) == len(held)]
        return cls(tuple(sets), tuple(strangers[n] for n in whole))

    def score(self, compared: Compared, own: np.ndarray) -> Score | None:
        """Area under the curve of devices, each with the mean score of its records.

        Args:
            compared: records that count.
            own: which candidates are the seat's; its devices are left out.

        Returns:
            ``auc_devices``; None where too few devices are left.
        """
        parts = self.grouped(compared, own)
        if parts is None:
            return None
        found, inside = parts.auc(), int(parts.bits.sum())
        others = len(parts.bits) - inside
        told = f"{inside} devices against {others}: an area below {least_area(inside, others):.2f} is missed"
        return replace(found, note="; ".join(part for part in (found.note, told) if part))

    def grouped(self, compared: Compared, own: np.ndarray) -> Compared | None:
        """The same records, those of a device as one; numbers are those of all devices, for every seat."""
        sets = [(number, held) for number, held in enumerate(self.sets) if not own[held].any()]
        if min(len(sets), len(self.strangers)) < FEWEST:
            return None
        groups = [*sets, *enumerate(self.strangers, start=len(self.sets))]
        place = np.full(len(own), -1)
        place[compared.records] = np.arange(len(compared.records))
        scores, blind = (
            np.array([of[place[held]].mean() for _, held in groups])
            for of in (compared.scores, compared.blind)
        )
        return replace(
            compared,
            records=np.array([number for number, _ in groups]),
            scores=scores,
            bits=np.arange(len(groups)) < len(sets),
            blind=blind,
            group="devices",
        )


def _alike(wanted: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Positions in ``free``, label for label; any for labels that have run out, and fewer at the end."""
    chosen: list[int] = []
    for label in np.unique(wanted):
        chosen += np.flatnonzero(free == label)[: int((wanted == label).sum())].tolist()
    rest = np.setdiff1d(np.arange(len(free)), chosen)[: len(wanted) - len(chosen)]
    return np.array([*chosen, *rest.tolist()], dtype=np.int64)
