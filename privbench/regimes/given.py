"""A model that was trained elsewhere: no traffic, only what is released."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from privbench.contract import Net, Topology
from privbench.data.population import Population
from privbench.errors import DataError, StorageError, UsageError
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
        UsageError: there are no weights, they lie in a pickle, do not fit the model, or nobody says what
            trained them.
        StorageError: the file cannot be read.
        DataError: a weight is NaN or infinite.
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
        _check(held, f"regime.weights={self.weights}" if self.weights else "the model's weights")
        bare = replace(net, weights=None)
        topology = Topology(
            regime=self.name, parties=("world",), owners=(), net=bare, steps=0, steps_per_epoch=1
        )
        wire.open(topology)
        return Trained(
            net=held,
            recipe=self.recipe(bare, len(population.train)),
            trainer=self.trainer,
            topology=topology,
            bytes_per_sample=0.0,
            flops_per_sample=0.0,
        )


def _check(held: Net, where: str) -> None:
    """Are these the numbers of this network?

    Raises:
        UsageError: other names or shapes.
        DataError: a number is NaN or infinite.
    """
    wanted, given = replace(held, weights=None).module().state_dict(), dict(held.weights or {})
    faults = [f"there is no {name}" for name in wanted if name not in given]
    faults += [f"{name} is none of its" for name in given if name not in wanted]
    faults += [
        f"{name} has shape {tuple(given[name].shape)} in place of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if faults:
        more = f", and {len(faults) - 3} faults more" if len(faults) > 3 else ""
        raise UsageError(
            f"{where} do not fit model {held.spec.target}: {'; '.join(faults[:3])}{more}; choose the "
            "network that they were saved from: model=..., with its settings (as model.widths=[64,32,10])"
        )
    for name, tensor in given.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DataError(
                f"{where}: NaN or infinite values in '{name}'; expected finite weights: save a model that "
                "trained without them"
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
