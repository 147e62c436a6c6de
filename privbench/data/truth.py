"""The truth: which sample was where. The scorer alone, and the harness that cuts views, ask it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from privbench.contract import Observed, Recipe, Samples, augmented, child_rng
from privbench.errors import PluginError, StorageError

Rows = Int64[Tensor, "n 2"]


@dataclass(frozen=True, eq=False)
class _Index:
    """Batches one after another: those of ``steps[i]`` begin at ``starts[i]``."""

    steps: Tensor
    starts: Tensor
    sizes: Tensor
    positions: Tensor


class Truth:
    """Which record stood behind each row, who owned it, who is a member.

    Args:
        train: the members, in the population's order.
        places: for each candidate its position in ``train``, -1 for a non-member; None where
            membership is not asked.

    ``observed`` is what gradient canaries saw, with their coins; None = there were none.

    Before ``deal`` all records belong to owner 0. What is noted later replaces what was noted
    before (a regime may train twice).
    """

    def __init__(self, train: Samples, places: Int64[Tensor, " candidates"] | None = None) -> None:
        self.train = train
        self.places = places
        self.owners: Int64[Tensor, " n"] = torch.zeros(len(train), dtype=torch.int64)
        self.observed: Observed | None = None
        self._batches: dict[int, Tensor] = {}
        self._index: _Index | None = None

    @property
    def member(self) -> Bool[Tensor, " candidates"] | None:
        """The bit that membership attacks guess, in the candidates' order."""
        return None if self.places is None else self.places >= 0

    def note(self, step: int, positions: Int64[Tensor, " rows"]) -> None:
        """Row i of ``step`` was ``train[positions[i]]``.

        Raises:
            PluginError: a position is no place in ``train``.
        """
        if len(positions) and not 0 <= int(positions.min()) <= int(positions.max()) < len(
            self.train
        ):
            raise PluginError(
                f"step {step} names positions {int(positions.min())} to {int(positions.max())}; "
                f"expected 0 to {len(self.train) - 1}"
            )
        self._batches[step] = positions.to(torch.int64).clone()
        self._index = None

    def batch(self, step: int) -> Int64[Tensor, " rows"]:
        """Positions in ``train`` of the records behind the rows of a step that was noted."""
        return self._batches[step]

    def shuffle(self, orders: Mapping[int, Int64[Tensor, " _rows"]]) -> None:
        """Row i of a step is from now on what row ``orders[step][i]`` was."""
        for step, order in orders.items():
            self._batches[step] = self._batches[step][order]
        self._index = None

    def deal(self, shares: Sequence[Int64[Tensor, " _share"]]) -> None:
        """Owner k holds the records at ``shares[k]``."""
        self.owners = torch.zeros(len(self.train), dtype=torch.int64)
        for number, share in enumerate(shares):
            self.owners[share] = number

    def sample_of(self, rows: Rows) -> Int64[Tensor, " n"]:
        """Position in ``train`` of the record behind each (step, index).

        Raises:
            PluginError: a row that never was.
        """
        if not len(rows):
            return torch.empty(0, dtype=torch.int64)
        index = self._indexed()
        at = torch.searchsorted(index.steps, rows[:, 0].contiguous())
        safe = at.clamp(max=max(len(index.steps) - 1, 0))
        good = torch.zeros(len(rows), dtype=torch.bool)
        if len(index.steps):
            good = (index.steps[safe] == rows[:, 0]) & (rows[:, 1] >= 0)
            good &= rows[:, 1] < index.sizes[safe]
        if not bool(good.all()):
            step, number = rows[~good][0].tolist()
            raise PluginError(
                f"row (step {step}, index {number}) never crossed the wire; expected rows that the "
                "view's messages name"
            )
        return index.positions[index.starts[safe] + rows[:, 1]]

    def samples(self, rows: Rows) -> Samples:
        """The records behind rows."""
        return self.train[self.sample_of(rows)]

    def learned(self, rows: Rows, recipe: Recipe, noise: torch.Generator) -> Samples:
        """What was learned from at these rows: the records, or the copies of them that crossed.

        A row of a federated round stands for all of a client's visits to a record in it, each to another
        copy: it has the record.

        Args:
            noise: by which the recipe's copies were drawn, see ``augmented``.
        """
        found = self.samples(rows)
        if recipe.augmentation is None or recipe.federation is not None:
            return found
        x = found.x.clone()
        for step in rows[:, 0].unique().tolist():
            here, batch = rows[:, 0] == step, self.batch(step)
            copies = augmented(recipe, self.train[batch], batch, noise, step)
            x[here] = copies.x[rows[here, 1]]
        return Samples(x, found.y)

    def owners_of(self, rows: Rows) -> Int64[Tensor, " n"]:
        """Number of the owner of the record behind each row."""
        return self.owners[self.sample_of(rows)]

    def owned(self, numbers: frozenset[int]) -> Bool[Tensor, " n"]:
        """Which records of ``train`` belong to these owners."""
        return torch.isin(self.owners, torch.tensor(sorted(numbers), dtype=torch.int64))

    def victims(
        self, rows: Rows, owned: frozenset[int], count: int, seed: int
    ) -> Int64[Tensor, "victims 2"]:
        """Rows to attack: one for each victim, the last in which it was seen.

        Victims are the first ``count`` of those seen, in an order of the members that the seed
        fixes: the same samples for every seat and regime, as far as they were seen.

        Args:
            rows: what a seat saw.
            owned: numbers of owners whose records do not count (the seat's own).

        Returns:
            at most ``count`` rows, sorted by step and index (their order says nothing).
        """
        if not len(rows):
            return rows.reshape(0, 2)
        rows = torch.unique(rows, dim=0)  # sorted by step, then index
        last = self._last(rows, owned)
        rng = child_rng(torch.Generator().manual_seed(seed), "victims")
        chosen = last[torch.randperm(len(self.train), generator=rng)]
        return rows[chosen[chosen >= 0][:count].sort().values]

    def pairs(
        self, rows: Rows, owned: frozenset[int], count: int, seed: int, steps_per_epoch: int
    ) -> Int64[Tensor, "paired 2"]:
        """Pairs of rows of two epochs, about half of them of one sample: rows 2i and 2i + 1.

        A coin, fixed by the seed, says for each sample that was seen twice whether the row before its
        last is paired with its last or with another's. Others' are drawn from the same two epochs, so
        that steps tell nothing, and of the same label where there are labels: to know the class is not
        to know the sample.

        Args:
            rows, owned, count, seed: see ``victims``; ``count`` pairs.
        """
        if not len(rows):
            return rows.reshape(0, 2)
        rows = torch.unique(rows, dim=0)
        last = self._last(rows, owned)
        kept = torch.ones(len(rows), dtype=torch.bool)
        kept[last[last >= 0]] = False
        before = self._last(rows, owned, kept)
        rng = child_rng(torch.Generator().manual_seed(seed), "pairs")
        order = torch.randperm(len(self.train), generator=rng)
        same = torch.rand(len(self.train), generator=rng)[order] < 0.5
        twice = before[order] >= 0
        first, second, same = before[order][twice], last[order][twice], same[twice]
        epochs = torch.stack([rows[first, 0], rows[second, 0]], dim=1) // steps_per_epoch
        labels = torch.zeros(len(self.train)) if self.train.y is None else self.train.y.cpu()
        kinds = torch.cat([epochs, labels[order][twice][:, None].long()], dim=1)
        keep, partner = epochs[:, 0] < epochs[:, 1], second.clone()
        for kind in kinds.unique(dim=0):
            here = (kinds == kind).all(dim=1).nonzero().flatten()
            partner[here] = second[here.roll(1)]
            keep[here] &= same[here] | (len(here) > 1)
        second = torch.where(same, second, partner)
        return rows[torch.stack([first[keep], second[keep]], dim=1)[:count].flatten()]

    def _last(
        self, rows: Rows, owned: frozenset[int], kept: Bool[Tensor, " n"] | None = None
    ) -> Int64[Tensor, " train"]:
        """For each record the place of the last of these sorted rows that held it; -1 = none did."""
        places = torch.arange(len(rows))
        places = places if kept is None else places.where(kept, torch.tensor(-1))
        last = torch.full((len(self.train),), -1, dtype=torch.int64)
        last.scatter_reduce_(0, self.sample_of(rows), places, "amax")
        last[self.owned(owned)] = -1
        return last

    def take(self, other: Truth) -> None:
        """Take over the batches and owners of another truth, and what gradient canaries saw."""
        self._batches, self.owners, self._index = dict(other._batches), other.owners, None
        self.observed = other.observed

    def save(self, file: Path) -> None:
        """Write batches and owners (the records themselves are opened again by seed)."""
        index = self._indexed()
        parts = {"steps": index.steps, "sizes": index.sizes, "positions": index.positions}
        if self.observed is not None:
            parts |= self.observed._asdict()
        try:
            save_file({**parts, "owners": self.owners}, file)
        except (OSError, SafetensorError) as cause:
            raise StorageError(
                f"cannot write '{file}': {cause}; expected a writable folder"
            ) from cause

    def load(self, file: Path) -> None:
        """Take over what ``save`` wrote of the same records.

        Raises:
            StorageError: the file is missing, damaged, or of other records.
        """
        try:
            stored = load_file(file)
            owners, sizes = stored["owners"], stored["sizes"].tolist()
            batches = dict(
                zip(stored["steps"].tolist(), stored["positions"].split(sizes), strict=True)
            )
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as cause:
            raise StorageError(
                f"'{file}' holds no whole truth ({cause}); remove its folder, then run again"
            ) from cause
        if len(owners) != len(self.train):
            raise StorageError(
                f"'{file}' is the truth of {len(owners)} records, expected {len(self.train)}; "
                "remove its folder, then run again"
            )
        self._batches, self.owners, self._index = batches, owners, None
        self.observed = (
            Observed(*(stored[f] for f in Observed._fields)) if "coins" in stored else None
        )

    def _indexed(self) -> _Index:
        if self._index is None:
            steps = sorted(self._batches)
            parts = [self._batches[step] for step in steps]
            sizes = torch.tensor([len(part) for part in parts], dtype=torch.int64)
            whole = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
            numbers = torch.tensor(steps, dtype=torch.int64)
            self._index = _Index(numbers, sizes.cumsum(0) - sizes, sizes, whole)
        return self._index
