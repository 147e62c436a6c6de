"""One process of a crowd: ``python -m privbench.slicenet.distributed FOLDER``, or by torchrun.

It reads what it is told from the folder, joins the others by torch.distributed (gloo), trains, and leaves
what it heard in the folder. It is told of the network's weights nothing but what messages bring: it
builds the network once from its constructor, to know its calls and shapes, and then empties it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Party, Samples
from privbench.errors import PrivbenchError, TrainingError
from privbench.slicenet.briefing import Private, Public
from privbench.slicenet.device import Holdings
from privbench.slicenet.program import Program
from privbench.slicenet.recording import Log
from privbench.slicenet.transport import Gloo
from privbench.wire import codec

START = 300  # seconds for all processes to start and join
FAILED = 3  # exit status of a process that says why


@dataclass(frozen=True, eq=False)
class Orders:
    """What every process of a run is told.

    Args:
        public: of the training.
        groups: parties of each process; the first holds coordinator and releaser.
        records: of all batches, one after the other, as numbers.
        sizes: rows of each batch.
        owner_of: number of each record's owner.
        kept: for each kind of message, the steps whose messages somebody keeps.
        threads: of each process.
        patience: to wait for another process, in seconds.
    """

    public: Public
    groups: tuple[tuple[Party, ...], ...]
    records: Int64[Tensor, " visits"]
    sizes: Int64[Tensor, " steps"]
    owner_of: Int64[Tensor, " records"]
    kept: Mapping[str, Tensor]
    threads: int
    patience: float

    def save(self, folder: Path) -> None:
        """Write them for all processes."""
        p = self.public
        public = (
            p.topology, p.recipe, p.shape, p.stem, p.noise_seed, str(p.dtype).split(".")[1],
            dict(p.constants),
        )  # fmt: skip
        rest = (
            self.groups, self.records, self.sizes, self.owner_of, dict(self.kept), self.threads,
            self.patience,
        )  # fmt: skip
        codec.save((public, rest), folder / "orders")

    @classmethod
    def load(cls, folder: Path) -> Orders:
        """Read them."""
        (topology, recipe, shape, stem, seed, dtype, constants), rest = codec.load(
            folder / "orders"
        )
        real = getattr(torch, dtype)
        return cls(Public(topology, recipe, shape, stem, seed, real, constants), *rest)


def save_private(private: Private, path: Path) -> None:
    """Write what one process alone is told."""
    held = {n: (h.records, h.samples.x, h.samples.y) for n, h in private.holdings.items()}
    state = None if private.state is None else dict(private.state)
    codec.save((private.parties, held, state), path)


def load_private(path: Path) -> Private:
    """Read it."""
    parties, held, state = codec.load(path)
    holdings = {name: Holdings(records, Samples(x, y)) for name, (records, x, y) in held.items()}
    return Private(parties, holdings, state)


def serve(folder: Path, rank: int, world: int, store: str) -> None:
    """All steps of one process.

    Args:
        folder: with orders.
        rank: of this process, of ``world``.
        store: where processes find each other, as torch.distributed names it.

    Raises:
        TrainingError: another process went away, or the wrong number of processes was started.
    """
    orders = Orders.load(folder)
    if world != len(orders.groups):
        raise TrainingError(
            f"{world} processes were started; expected {len(orders.groups)}: one for coordinator and "
            f"releaser, and regime.engine.processes={len(orders.groups) - 1} for devices"
        )
    torch.set_num_threads(orders.threads)
    home = {party: r for r, parties in enumerate(orders.groups) for party in parties}
    log = Log(folder / f"heard-{rank}", orders.kept)
    transport = Gloo(log, home, rank, orders.public.dtype, orders.patience)
    program = Program(orders.public, load_private(folder / f"private-{rank}"), transport, log)
    dist.init_process_group(
        "gloo", store, rank=rank, world_size=world, timeout=timedelta(seconds=START)
    )
    try:
        _steps(folder, rank, orders, program, log)
        dist.barrier()
    except RuntimeError as cause:  # whatever gloo says when a peer is gone or slow
        raise TrainingError(
            f"another process went away or answered nothing for {orders.patience:g} s: "
            f"{' '.join(str(cause).split())}"
        ) from cause
    dist.destroy_process_group()
    counters = {f"{piece}/{name}": value for (piece, name), value in program.counters().items()}
    state = None if program.releaser is None else program.releaser.state
    codec.save((counters, state), folder / f"done-{rank}")


def _steps(folder: Path, rank: int, orders: Orders, program: Program, log: Log) -> None:
    parent = os.getppid()
    last = len(orders.sizes) - 1
    with (folder / f"step-{rank}").open("wb", buffering=0) as progress:
        for step, records in enumerate(orders.records.split(orders.sizes.tolist())):
            program.step(step, orders.owner_of[records], records, step == last)
            log.end(step, program.loss)
            os.pwrite(progress.fileno(), (step + 1).to_bytes(8, "little"), 0)
            if os.getppid() != parent:
                raise TrainingError("whoever started this process has ended; expected it to wait")
    log.close()


def main() -> int:
    """Serve, and say why if that fails."""
    folder, rank, world = Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = os.environ.get("PRIVBENCH_STORE", "env://")
    try:
        serve(folder, rank, world, store)
    except Exception as error:  # noqa: BLE001 - whatever it is, whoever started us is to read it
        named = isinstance(error, PrivbenchError)
        words = str(error) if named else f"{type(error).__name__}: {' '.join(str(error).split())}"
        (folder / f"failed-{rank}").write_text(words)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(FAILED)  # gloo's threads may wait for a peer that is gone
    return 0


if __name__ == "__main__":
    sys.exit(main())
