"""Attacks that act while the model is trained: planted weights and hijacked features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.reconstruction.fsha import Fsha, Hijacker, hijacked
from attacks.reconstruction.imprint import Imprint, Imprinter, _bins
from attacks.reconstruction.trap_weights import Trapper, TrapWeights, _fired
from privbench.compose.launch import one
from privbench.compose.plans import Given
from privbench.compose.words import Words
from privbench.contract import (
    Attack,
    Layer,
    Message,
    Net,
    Public,
    Recipe,
    Samples,
    Seat,
    Slice,
    Spec,
    Stand,
    Topology,
)
from privbench.errors import NotApplicable, PrivbenchError
from privbench.experiment import run
from privbench.toolkit.planting import Planter, Told

SHAPE, WIDTHS, ROWS = (1, 6, 6), [36, 64, 20, 8, 4], 8
MLP = Net(Spec("privbench.models.mlp.Mlp", {"widths": WIDTHS}))
MAPS = Net(
    Spec(
        "privbench.models.alexnet.AlexNet",
        {"channels": 1, "size": 8, "convolutions": [4, 4, 4, 4, 4], "widths": [8, 8]},
    )
)


def _images(count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    level = torch.rand(count, 1, 1, 1, generator=rng)
    return (level + 0.4 * torch.rand(count, *SHAPE, generator=rng) - 0.2).clamp(0, 1)


def _stand(net: Net = MLP, x: Tensor | None = None, party: str = "server") -> Stand:
    known = Samples(_images(200, 0) if x is None else x)
    recipe = Recipe(net, Spec("torch.optim.SGD", {"lr": 0.1}), 1, ROWS)
    topology = Topology("fedavg", ("server", "client-0"), ("client-0",), net, 1, 1)
    seat = Seat(party, "infrastructure", (party,))
    return Stand(seat, topology, Public(auxiliary=known, recipe=recipe))


def _gradient(planter: Planter, stand: Stand, x: Tensor) -> Told:
    """What a client's gradient tells, by plain autograd under the planted weights."""
    planter.open(stand, torch.Generator().manual_seed(1))
    module = stand.topology.net.initialised(torch.Generator().manual_seed(2)).module()
    for name, parameter in module.named_parameters():
        sent = Message(0, "train", "server", "client-0", "global_weights", name, None, parameter)
        parameter.data = planter.act(sent, torch.Generator()).payload.detach().clone()
    F.cross_entropy(module(x), torch.arange(len(x)) % WIDTHS[-1]).backward()
    first = module.get_submodule("linear0")
    weight, bias = first.get_parameter("weight").grad, first.get_parameter("bias").grad
    assert weight is not None and bias is not None
    return Told(0, torch.arange(len(x)), weight.double(), bias.double())


def _exact(found: Tensor, x: Tensor) -> int:
    """How many inputs are among the readings."""
    return int((torch.cdist(x.flatten(1).double(), found, p=float("inf")).amin(dim=1) < 1e-3).sum())


def test_an_input_alone_in_its_bin_is_read_exactly() -> None:
    x, planter = _images(ROWS, 3), Imprinter(1)
    told = _gradient(planter, _stand(), x)
    notes = planter.notes()
    edges = -notes["linear0.bias"].double() / notes["linear0.weight"][0].double().sum()
    bins = torch.bucketize(x.flatten(1).double().mean(dim=1), edges)
    alone = sum(int((bins == one).sum()) == 1 for one in bins.tolist())
    assert alone >= ROWS // 2
    assert _exact(_bins(told, edges), x) >= alone


def test_bins_sort_a_sum_of_gradients() -> None:
    """Whoever adds up clients' gradients hides nothing from bins."""
    x, planter = _images(4, 4), Imprinter(1)
    one, other = (_gradient(planter, _stand(), part) for part in x.split(2))
    both = Told(0, torch.arange(4), one.weight + other.weight, one.bias + other.bias)
    notes = planter.notes()
    edges = -notes["linear0.bias"].double() / notes["linear0.weight"][0].double().sum()
    assert _exact(_bins(both, edges), x) == 4


def test_a_trap_that_one_input_springs_is_that_input() -> None:
    x = _images(ROWS, 5)
    told = _gradient(Trapper(1), _stand(), x)
    found = _fired(told)
    assert _exact(found, x) >= 3
    assert len(found) <= ROWS


def test_constant_images_and_a_single_one_do_no_harm() -> None:
    grey = torch.full((5, *SHAPE), 0.5)
    for planter in (Imprinter(1), Trapper(1)):
        told = _gradient(planter, _stand(x=grey), _images(1, 6))
        assert all(tensor.isfinite().all() for tensor in planter.notes().values())
        assert told.weight.isfinite().all()


def test_weights_are_planted_for_some_rounds_in_what_is_sent() -> None:
    planter = Imprinter(2)
    planter.open(_stand(), torch.Generator().manual_seed(0))
    whole = torch.zeros(WIDTHS[1], WIDTHS[0])
    for step, sender, changed in (
        (0, "server", True),
        (2, "server", False),
        (0, "client-0", False),
    ):
        sent = Message(step, "train", sender, "x", "global_weights", "linear0.weight", None, whole)
        assert (planter.act(sent, torch.Generator()) is not sent) is changed


@pytest.mark.parametrize(
    ("stand", "words"),
    [
        (_stand(net=MAPS, x=torch.rand(4, 1, 8, 8)), "type model=mlp"),
        (_stand(party="client-0"), "threat=server_active"),
        (replace(_stand(), public=Public()), "data.split=thirds"),
    ],
)
def test_planting_says_what_it_lacks(stand: Stand, words: str) -> None:
    for planter in (Imprinter(1), Trapper(1)):
        with pytest.raises(NotApplicable, match=words):
            planter.open(stand, torch.Generator())


def test_bins_need_a_second_layer_that_is_the_coordinators() -> None:
    names = ("linear0", "linear1", "linear2", "linear3")
    places = ("stem", "body", "body", "tail")
    layers = tuple(
        Layer(n, n, p, 4, (4,), (f"{n}.weight", f"{n}.bias"))
        for n, p in zip(names, places, strict=True)
    )
    stand = _stand(party="coordinator")
    stand = replace(stand, topology=replace(stand.topology, layers=layers))
    with pytest.raises(NotApplicable, match=r"regime.stem=2.*attack=trap_weights"):
        Imprinter(1).open(stand, torch.Generator())
    Trapper(1).open(stand, torch.Generator())


@cache
def _plans(*words: str) -> Callable[[Path, Attack], tuple[dict[str, float], dict[str, float]]]:
    def made(out: Path, attack: Attack) -> tuple[dict[str, float], dict[str, float]]:
        fixed = ("victims=24", "device=cpu", "seal=inline", f"out={out}")
        plan, _ = one(Words((*words, *fixed)), Given())
        report = run(replace(plan, attack=attack, debug=True))
        scores = report.scores
        return {s.metric: s.value for s in scores}, {s.metric: s.blind for s in scores}

    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "attack", "share"),
    [
        (("regime=fedavg", "++regime.rounds=4", "++regime.local_steps=1"), Imprint(), 0.6),
        (("regime=fedavg", "++regime.rounds=4", "++regime.local_steps=1"), TrapWeights(), 0.6),
        (("regime=slicenet", "++regime.epochs=1"), TrapWeights(), 0.7),
        (("regime=slicenet", "++regime.epochs=1", "++regime.stem=2"), Imprint(), 0.7),
    ],
)
def test_planted_weights_tell_digits_apart(
    words: tuple[str, ...], attack: Attack, share: float, tmp_path: Path
) -> None:
    threat = "server_active" if "fedavg" in words[0] else "coordinator_active"
    found, blind = _plans(*words, f"threat={threat}", "attack=imprint")(tmp_path, attack)
    assert found["identification"] > share
    assert found["psnr_db"] > blind["psnr_db"] + 20


def _crowd() -> Topology:
    layers = (
        Layer("linear0", "relu0", "stem", 6, (6,), ("linear0.weight", "linear0.bias")),
        Layer("linear1", "relu1", "body", 4, (4,), (), ("linear0",)),
        Layer("linear2", "relu2", "body", 4, (4,), (), ("linear1",)),
    )
    slices = (Slice("device-0", "linear1", (0,)), Slice("device-1", "linear2", (0,)))
    parties = ("device-0", "device-1", "coordinator")
    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": [36, 6, 4, 4, 3]}))
    return Topology("slicenet", parties, parties[:2], net, 1, 1, layers, slices)


def test_a_host_behind_others_cannot_teach_owners() -> None:
    layer, units = hijacked(_crowd(), Seat("device-0", "peer", ("device-0",)))
    assert (layer.name, units) == ("linear0", tuple(range(6)))
    with pytest.raises(NotApplicable, match=r"choose a seat that is: threat\.seat=device-0"):
        hijacked(_crowd(), Seat("device-1", "peer", ("device-1",)))


def _hijacker() -> Hijacker:
    actor = Hijacker(Fsha(width=4, rounds=2))
    seat = Seat("device-0", "peer", ("device-0",))
    public = Public(auxiliary=Samples(_images(20, 0)))
    actor.open(Stand(seat, _crowd(), public), torch.Generator().manual_seed(0))
    return actor


def _messages(rows: Tensor, kind: str, sender: str, receiver: str) -> Message:
    payload = torch.rand(len(rows), 6, generator=torch.Generator().manual_seed(3))
    units = tuple(range(6))
    return Message(0, "train", sender, receiver, kind, "linear0", units, payload, rows)


@pytest.mark.slow
def test_a_hijacker_answers_the_rows_that_it_saw_and_no_others() -> None:
    actor, rng = _hijacker(), torch.Generator().manual_seed(1)
    seen = _messages(torch.tensor([0, 2]), "activation", "device-1", "device-0")
    assert actor.act(seen, rng) is seen
    sent = _messages(torch.arange(4), "gradient", "device-0", "*")
    answer = actor.act(sent, rng).payload
    assert bool((answer[[0, 2]] != 0).any(dim=1).all())
    assert not bool(answer[[1, 3]].any())
    foreign = replace(sent, sender="device-1")
    assert actor.act(foreign, rng) is foreign
    assert actor.act(replace(sent, step=1), rng).payload is sent.payload, "nothing was seen"


def test_a_hijacker_repeats_itself() -> None:
    answers = []
    for _ in range(2):
        actor = _hijacker()
        rng = torch.Generator().manual_seed(1)
        actor.act(_messages(torch.arange(4), "activation", "device-1", "device-0"), rng)
        sent = _messages(torch.arange(4), "gradient", "device-0", "*")
        answers.append((actor.act(sent, rng).payload, actor.notes()))
    assert torch.equal(answers[0][0], answers[1][0])
    assert all(torch.equal(answers[0][1][name], tensor) for name, tensor in answers[1][1].items())


def test_a_hijacker_without_inputs_says_so() -> None:
    seat = Seat("device-0", "peer", ("device-0",))
    with pytest.raises(PrivbenchError, match=r"data\.split=thirds"):
        Hijacker(Fsha()).open(Stand(seat, _crowd(), Public()), torch.Generator())
