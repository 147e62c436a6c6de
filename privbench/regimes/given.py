"""A model that was trained elsewhere: no traffic, only what is released."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from privbench.contract import Net, Topology, finite
from privbench.data.population import Population
from privbench.errors import StorageError, UsageError
from privbench.regimes.base import Regime, Trained
from privbench.wire.wire import Wire


@dataclass(frozen=True, kw_only=True)
class Given(Regime):
    """Takes a trained model as it is; members and non-members are those of the data.

    The other settings (``lr``, ``epochs``, …) say how it was trained, as far as that is known:
    attacks that train shadow models follow them.

    Args:
        weights: a safetensors file with the model's state dict; None = the net holds its weights.

    Raises:
        UsageError: there are no weights, they lie in a pickle, or nobody says what trained them.
        StorageError: the file cannot be read.
        PluginError: the weights do not fit the model.
    """

    name: ClassVar[str] = "given"

    weights: str | None = None  # path

    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """See ``Regime.train``; nothing is trained and nothing crosses the wire."""
        if not population.told:
            raise UsageError(
                "regime=given needs to know which records trained the model, and these data do not say; "
                "add a key 'split' to the .npz (0 member, 1 non_member, and 2 auxiliary if there are "
                "some), or in Python pass members=(x, y) and non_members=(x, y)"
            )
        held = net if self.weights is None else replace(net, weights=_read(Path(self.weights)))
        if held.weights is None:
            raise UsageError(
                "regime=given attacks a model that is trained already, and this one has no weights; "
                "set regime.weights=FILE.safetensors, or hand over a trained module"
            )
        held.module()  # refuses weights that do not fit
        bare = replace(net, weights=None)
        topology = Topology(
            regime=self.name, parties=("world",), owners=(), net=bare, steps=0, steps_per_epoch=1
        )
        wire.open(topology)
        return Trained(
            net=finite(held),
            recipe=self.recipe(bare, len(population.train)),
            trainer=self.trainer,
            topology=topology,
            bytes_per_sample=0.0,
            flops_per_sample=0.0,
        )


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file."""
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
        raise UsageError(
            f"regime.weights={path}: such a file is a pickle, which may run code when it is read; "
            'convert it once: python -c "import torch, safetensors.torch as s; s.save_file('
            f"torch.load('{path}', weights_only=True), '{path.with_suffix('.safetensors')}')\""
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as cause:
        raise StorageError(
            f"regime.weights={path} cannot be read: {cause}; expected a safetensors file"
        ) from cause
