"""A network without tensors, and where channels stand in what is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from privbench.slicenet.graph import Graph


class Skeleton:
    """A network that has lost its tensors: the calls of its stages, to run with tensors that are lent.

    Args:
        graph: of a network of its own; the tensors of its stages are emptied by ``strip``.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def strip(self) -> None:
        """Give up all tensors of the network: whoever runs it must lend it some."""
        for stage in self.graph.stages:
            for tensor in stage.tensors.values():
                tensor.data = tensor.data.new_empty(0)

    @contextmanager
    def lent(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the network has these tensors, by their names in the state dict."""
        before: list[tuple[dict[str, Any], str, Any]] = []
        for path, tensor in tensors.items():
            owner, _, name = path.rpartition(".")
            module = self.graph.root.get_submodule(owner)
            place: dict[str, Any] = module._parameters
            if name not in place:
                place = module._buffers
            before.append((place, name, place[name]))
            place[name] = tensor
        try:
            yield
        finally:
            for place, name, tensor in reversed(before):
                place[name] = tensor


class Order:
    """Channels in a row, and where some of them stand; answers are kept, for each step asks again."""

    def __init__(self, channels: Sequence[int]) -> None:
        self._at = {channel: place for place, channel in enumerate(channels)}
        self._known: dict[tuple[int, ...], Any] = {}

    def place(self, units: tuple[int, ...]) -> Any:
        """An index of these channels: a slice where they stand side by side."""
        if units not in self._known:
            self._known[units] = index_of([self._at[unit] for unit in units], len(self._at))
        return self._known[units]


def index_of(chosen: Sequence[int], size: int) -> Any:
    """An index of these, by a slice where they stand in a row."""
    if len(chosen) == size and list(chosen) == list(range(size)):
        return slice(None)
    if list(chosen) == list(range(chosen[0], chosen[-1] + 1)) if chosen else False:
        return slice(chosen[0], chosen[-1] + 1)
    return torch.tensor(chosen, dtype=torch.int64)
