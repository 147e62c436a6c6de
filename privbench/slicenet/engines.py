"""The engines that train a crowd: all in one process, or in processes that hold their own slices alone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from privbench.contract import KINDS, Party, Recipe, Samples, Topology
from privbench.errors import TrainingError, UsageError
from privbench.slicenet.briefing import Private, Public
from privbench.slicenet.device import Holdings
from privbench.slicenet.distributed import Orders, save_private
from privbench.slicenet.graph import Graph
from privbench.slicenet.launching import await_others, launch
from privbench.slicenet.office import put
from privbench.slicenet.parcels import COORDINATOR, RELEASER
from privbench.slicenet.recording import IN_FORCE, Heard, merged
from privbench.wire import codec
from privbench.wire.capture import Capture
from privbench.wire.router import Direct
from privbench.wire.tap import Recorder
from privbench.wire.wire import Wire

PRIVATE = ("private-*", "orders", "store", "step-*", "done-*", "process-*")
"""Files of a run's folder that hold samples or weights, or are of no use afterwards."""


@dataclass(frozen=True, eq=False)
class Job:
    """A training that is to be done.

    Args:
        module: with initial weights; it ends with the trained ones.
        graph: its stages.
        topology: with layers and slices.
        wire: not yet opened.
        recipe: of the training.
        noise_seed: of random layers.
        stem: layers that owners run.
        samples: of all owners.
        owner_of: number of each sample's owner.
        batches: positions in ``samples``, step by step.
    """

    module: nn.Module
    graph: Graph
    topology: Topology
    wire: Wire
    recipe: Recipe
    noise_seed: int
    stem: int
    samples: Samples
    owner_of: Int64[Tensor, " records"]
    batches: Sequence[Int64[Tensor, " _rows"]]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where a crowd is computed."""


@dataclass(frozen=True, kw_only=True)
class InOneProcess(Engine):
    """One process computes layers whole and says what devices would have sent (the default)."""


@dataclass(frozen=True, kw_only=True)
class Distributed(Engine):
    """Devices live in processes that hold nothing but their slices and samples (ours).

    Tensors pass between processes by torch.distributed's gloo (Li et al.: PyTorch Distributed, VLDB
    2020, https://doi.org/10.14778/3415478.3415530). Parameters and messages are those of the
    simulated crowd, to rounding; the tap sits where messages are sent.

    Args:
        processes: of devices; one more holds coordinator and releaser.
        launch: ``local`` starts them on this machine; ``torchrun`` waits for processes that are started
            elsewhere.
        folder: shared by all of them; empty = a temporary one.
        patience: to wait for another process within a step.
    """

    processes: int = 2
    launch: str = "local"
    folder: str = ""
    patience: float = 20.0  # seconds

    def train(self, job: Job) -> list[Tensor]:
        """Train the job's module; the mean loss of each step.

        Raises:
            UsageError: a setting is out of range, or the job asks for what this engine does not do.
            TrainingError: a process ended before it was done.
        """
        self._check(job)
        folder = Path(self.folder or tempfile.mkdtemp(prefix="privbench-crowd-"))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(
                f"regime.engine.folder='{folder}' is not empty; expected a new folder: delete it, or "
                "name another"
            )
        job.wire.open(job.topology, Direct())
        groups = self._groups(job.topology)
        self._write(job, groups, folder)
        try:
            if self.launch == "local":
                launch(folder, len(groups), len(job.batches))
            else:
                patience = self.patience + 10
                await_others(folder, len(groups), len(job.batches), patience)
        except TrainingError as error:
            raise _kept(error, job, folder, len(groups)) from error
        losses = [_play(job.wire, job, heard) for heard in _heard(folder, len(groups))]
        _finish(job, folder, len(groups))
        shutil.rmtree(folder)
        return losses

    def _check(self, job: Job) -> None:
        if type(self.processes) is not int or self.processes < 1:
            raise UsageError(
                f"regime.engine.processes={self.processes}; expected a whole number of at least 1"
            )
        if self.launch not in ("local", "torchrun"):
            raise UsageError(
                f"regime.engine.launch='{self.launch}'; expected local, or torchrun (which waits for "
                "processes that you start)"
            )
        if self.launch == "torchrun" and not self.folder:
            raise UsageError(
                "regime.engine.launch=torchrun needs a folder that all machines see: "
                "regime.engine.folder=FOLDER"
            )
        if not self.patience > 0:
            raise UsageError(f"regime.engine.patience={self.patience}; expected seconds above 0")
        refused = {
            "message defenses": bool(job.wire.defenses),
            "active attacks": job.wire.actor is not None,
            "replicas": bool(job.topology.replicas),
            "device=cuda": job.samples.x.device.type != "cpu",
        }
        for what in (name for name, there in refused.items() if there):
            raise UsageError(
                f"engine=distributed does without {what}: it is for training as it is on the CPU; "
                f"type engine=simulated, or leave {what} out"
            )

    def _groups(self, topology: Topology) -> tuple[tuple[Party, ...], ...]:
        """Parties of each process: the largest load first, each to the process with the least yet.

        After R. L. Graham: Bounds on multiprocessing timing anomalies, SIAM Journal on Applied
        Mathematics 17, 1969, https://doi.org/10.1137/0117039.
        """
        loads = {load.party: load.flops for load in topology.loads}
        devices = [p for p in topology.parties if p not in (COORDINATOR, RELEASER)]
        if self.processes > len(devices):
            raise UsageError(
                f"regime.engine.processes={self.processes} for {len(devices)} devices; expected at most "
                f"one for each: regime.engine.processes={len(devices)}"
            )
        groups: list[list[Party]] = [[] for _ in range(self.processes)]
        totals = [0.0] * self.processes
        for party in sorted(devices, key=lambda p: (-loads.get(p, 0.0), devices.index(p))):
            least = min(range(self.processes), key=lambda g: (totals[g], len(groups[g])))
            groups[least].append(party)
            totals[least] += loads.get(party, 0.0)
        order = {party: number for number, party in enumerate(devices)}
        sorted_groups = [tuple(sorted(group, key=order.__getitem__)) for group in groups]
        return ((COORDINATOR, RELEASER), *sorted_groups)

    def _write(self, job: Job, groups: Sequence[Sequence[Party]], folder: Path) -> None:
        """Tell every process what it may know."""
        steps = range(len(job.batches))
        orders = Orders(
            public=Public.of(
                job.topology, job.recipe, job.graph, job.noise_seed, job.samples.x[0], job.stem
            ),
            groups=tuple(tuple(group) for group in groups),
            records=torch.cat(tuple(job.batches)),
            sizes=torch.tensor([len(positions) for positions in job.batches]),
            owner_of=job.owner_of,
            kept={
                **{k: _flags(job.wire.wants(step, k) for step in steps) for k in KINDS},
                IN_FORCE: _flags(job.wire.watches(step) for step in steps),
            },
            threads=torch.get_num_threads(),
            patience=float(self.patience),
        )
        orders.save(folder)
        numbers = {party: number for number, party in enumerate(job.topology.owners)}
        for rank, group in enumerate(groups):
            holdings = {}
            for party in group:
                if party in numbers:
                    records = (job.owner_of == numbers[party]).nonzero().flatten()
                    holdings[party] = Holdings(records, job.samples[records])
            state = None
            if RELEASER in group:
                state = {n: t.detach().clone() for n, t in job.module.state_dict().items()}
            private = Private(tuple(group), holdings, state)
            save_private(private, folder / f"private-{rank}")


def _flags(found: Iterable[bool]) -> Bool[Tensor, " steps"]:
    return torch.tensor(list(found), dtype=torch.bool)


def _heard(folder: Path, world: int) -> Iterator[Heard]:
    return merged([folder / f"heard-{rank}" for rank in range(world)])


def _play(wire: Wire, job: Job, heard: Heard) -> Tensor:
    """Let taps hear a step."""
    wire.begin(heard.step, job.owner_of[job.batches[heard.step]])
    if heard.held:
        wire.hold(heard.step, _state(job, heard.held))
    for message in heard.messages:
        wire.send(message)
    for kind, nbytes in heard.counts.items():
        wire.count(kind, nbytes)
    return heard.loss


def _state(job: Job, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole state from what parties held."""
    state = {name: tensor.detach().clone() for name, tensor in job.module.state_dict().items()}
    for key, tensor in held.items():
        number, name = key.split("/", 1)
        put(state, name, None if int(number) < 0 else job.topology.slices[int(number)], tensor)
    return state


def _finish(job: Job, folder: Path, world: int) -> None:
    """The trained weights, from the releaser and the counters of hosts."""
    counters: dict[str, Tensor] = {}
    state: Mapping[str, Tensor] = {}
    for rank in range(world):
        mine, put_together = codec.load(folder / f"done-{rank}")
        counters |= mine
        state = put_together or state
    job.module.load_state_dict(dict(state))
    job.module.load_state_dict(_state(job, counters))


def _kept(error: TrainingError, job: Job, folder: Path, world: int) -> TrainingError:
    """The error, once what was recorded until then lies in a transcript; private files are deleted."""
    for pattern in PRIVATE:
        for path in folder.glob(pattern):
            path.unlink()
    transcript = folder / "transcript"
    transcript.mkdir()
    tap = Recorder(transcript, Capture(first=len(job.batches)))
    wire = Wire((tap,))
    wire.open(job.topology, Direct())
    steps = 0
    for heard in _heard(folder, world):
        _play(wire, replace(job, wire=wire), heard)
        steps += 1
    tap.close()
    for rank in range(world):
        (folder / f"heard-{rank}").unlink(missing_ok=True)
    return TrainingError(
        f"{error}; expected all processes to stay until the last step: run it again. What was recorded "
        f"of {steps} whole steps lies in '{transcript}' (privbench.wire.transcript.Transcript reads it)"
    )
