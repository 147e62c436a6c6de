"""What policies keep of a run, against everything that was sent in it."""

from dataclasses import replace

import pytest
import torch
from crowds import EVERYTHING, mlp, trained

from privbench.contract import ROW_KINDS, TENSOR_KINDS, Message, Seat
from privbench.data.truth import Truth
from privbench.errors import UsageError
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.crowd import Uniform
from privbench.wire.capture import Capture, drawn_members, halved, renumbered
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire

SPEC, SHAPE = mlp(9, 12, 8, 6, 4), (1, 3, 3)
SEATS = (
    EVERYTHING,
    Seat("device-1", "peer", ("device-1",)),
    Seat("some", "peer", ("device-0", "device-3", "coordinator")),
    Seat("link", "network", links=(("device-2", "device-4"),)),
)
SEED = 5


def crowd(tiling="input", replicas=1):
    return SliceNet(
        crowd=Uniform(devices=5),
        tiling=tiling,
        granularity=2,
        epochs=2,
        batch=12,
        replicas=replicas,
    )


@pytest.fixture(scope="module")
def told():
    """Everything that a small crowd sent, each host's part worked out while training."""
    return trained(crowd(), SPEC, SHAPE, count=36, dtype=torch.float32)


def recorded(told, folder, capture):
    """The same training, recorded as a policy says, and its truth."""
    truth = Truth(told.population.train)
    members = drawn_members(capture.samples, len(truth.train), SEED)

    def chosen(step):
        truth.note(step, told.population.noted[step])
        return torch.isin(truth.batch(step), members).to(torch.int64)

    tap = Recorder(folder, capture, seed=SEED, chosen=chosen)
    wire = Wire((tap,))
    done = told.regime.train(told.net, told.population, wire, told.rng, "cpu")
    tap.close()
    for step, positions in told.population.noted.items():
        truth.note(step, positions)
    truth.shuffle(tap.orders)
    return done, wire, Transcript(folder), truth


def sent(told, seat=EVERYTHING):
    return list(told.tap.cut(seat))


def same(found, expected):
    names = ("step", "kind", "sender", "receiver", "layer", "units")
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
        assert torch.equal(one.rows, other.rows)
        torch.testing.assert_close(one.payload, other.payload, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "policy",
    [
        {"kinds": ("activation", "stem_weights")},
        {"links": (1, (2, 4))},
        {"reservoir": 2, "first": 0, "last": False},
        {"half": True},
        {"samples": 7},
        {"kinds": ("gradient",), "links": ("coordinator", 0), "half": True, "samples": 9},
    ],
    ids=str,
)
def test_recording_changes_neither_weights_nor_bytes(told, tmp_path, policy):
    done, wire, found, _ = recorded(told, tmp_path, Capture(**policy))
    for name, tensor in told.trained.net.weights.items():
        assert torch.equal(done.net.weights[name], tensor)
    assert wire.bytes == told.wire.bytes
    assert list(found.messages)


def test_some_kinds_are_kept_and_the_weights_of_seats_as_ever(told, tmp_path):
    kinds = ("gradient", "stem_gradient")
    _, _, found, _ = recorded(told, tmp_path, Capture(kinds=kinds))
    for seat in SEATS[:3]:
        read = list(found.seen_by(seat, found.steps, (*ROW_KINDS, *TENSOR_KINDS)))
        same(read, [m for m in sent(told, seat) if m.kind in kinds])
    assert found.steps_with_state == tuple(range(6))


def test_some_links_are_kept_for_whoever_sees_them(told, tmp_path):
    _, _, found, _ = recorded(told, tmp_path, Capture(links=(1, ("device-2", 4))))
    kept = Seat("", "network", ("device-1",), (("device-2", "device-4"),))
    for seat in SEATS:
        read = list(found.seen_by(seat, found.steps, (*ROW_KINDS, *TENSOR_KINDS)))
        same(read, [m for m in sent(told, seat) if kept.sees(m.sender, m.receiver)])


def test_a_reservoir_is_a_uniform_draw_of_whole_steps(told, tmp_path):
    capture = Capture(reservoir=2, first=0, last=False)
    _, _, found, _ = recorded(told, tmp_path, capture)
    assert len(found.steps) == 2 and found.steps_with_state == found.steps
    read = list(found.seen_by(EVERYTHING, found.steps, (*ROW_KINDS, *TENSOR_KINDS)))
    same(read, [m for m in sent(told) if m.step in found.steps])


@pytest.mark.slow
def test_each_step_is_as_likely_in_the_reservoir(told, tmp_path):
    topology = replace(told.trained.topology, steps=10, steps_per_epoch=1)
    hits = torch.zeros(10)
    for seed in range(600):
        tap = Recorder(tmp_path, Capture(reservoir=3, first=0, last=False), seed=seed)
        tap.open(topology, told.wire._router)
        kept = [tap.keeps(step, "activation") for step in range(10)]
        assert sum(kept) == 3
        hits += torch.tensor(kept)
    assert ((hits / 600 - 0.3).abs() < 4 * (0.21 / 600) ** 0.5).all()


@pytest.mark.parametrize("tiling", ["input", pytest.param("output", marks=pytest.mark.slow)])
def test_half_is_what_was_sent_in_sixteen_bits(tiling, tmp_path):
    told = trained(crowd(tiling), SPEC, SHAPE, count=36, dtype=torch.float32)
    _, _, found, _ = recorded(told, tmp_path, Capture(half=True))
    for seat in SEATS:
        read = list(found.seen_by(seat, found.steps, (*ROW_KINDS, *TENSOR_KINDS)))
        for one, other in zip(read, sent(told, seat), strict=True):
            expected = halved(other).payload
            assert one.payload.dtype == expected.dtype
            atol = 0.02 * float(other.payload.abs().max()) if other.kind in ROW_KINDS else 0
            torch.testing.assert_close(one.payload.float(), expected.float(), rtol=0.02, atol=atol)


def test_half_keeps_tiny_gradients_large_activations_and_parameters():
    def message(kind, value):
        rows = torch.arange(1) if kind in ROW_KINDS else torch.empty(0, dtype=torch.int64)
        payload = torch.full((1, 2), value)
        return halved(Message(0, "train", "a", "b", kind, "one", None, payload, rows)).payload

    assert message("activation", 0.1).dtype == torch.float16
    assert float(message("activation", 1e6)[0, 0]) == pytest.approx(1e6, rel=4e-3)
    assert float(message("gradient", 1e-12)[0, 0]) == pytest.approx(1e-12, rel=4e-3)
    assert message("stem_weights", 0.1).dtype == torch.float32


@pytest.mark.parametrize("replicas", [1, 2])
def test_members_are_found_by_the_truth_alone(replicas, tmp_path):
    told = trained(crowd("input", replicas), SPEC, SHAPE, count=36, dtype=torch.float32)
    _, wire, found, truth = recorded(told, tmp_path, Capture(samples=10))
    members = set(drawn_members(10, 36, SEED).tolist())
    plain = Truth(told.population.train)
    for step, positions in told.population.noted.items():
        plain.note(step, positions)
    held, seen = {}, set()
    cutting = wire._router
    for message in told.tap.messages:
        for each in cutting.cut(message, told.tap.owners[message.step], EVERYTHING):
            held |= by_sample(each, plain)
    for each in found.seen_by(EVERYTHING, found.steps, ROW_KINDS):
        assert bool((each.rows.diff() > 0).all())
        for key, value in by_sample(each, truth).items():
            torch.testing.assert_close(value, held[key], rtol=1e-4, atol=1e-7)
            seen.add(key)
    assert seen == {key for key in held if key[-1] in members}
    for step, positions in told.population.noted.items():
        assert sorted(truth.batch(step).tolist()) == sorted(positions.tolist())
        assert not torch.equal(truth.batch(step), positions)


def by_sample(message, truth):
    """Payloads by what tells a message from others, and the record."""
    if message.kind not in ROW_KINDS:
        return {}
    rows = torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)
    key = (
        message.step,
        message.kind,
        message.sender,
        message.receiver,
        message.layer,
        message.units,
    )
    records = truth.sample_of(rows).tolist()
    return {(*key, record): message.payload[i] for i, record in enumerate(records)}


def test_owners_follow_their_rows_and_parameters_name_all_of_them(told, tmp_path):
    _, _, found, truth = recorded(told, tmp_path, Capture(samples=5))
    owner_of = torch.zeros(36, dtype=torch.int64)
    for number, share in enumerate(told.population.shares):
        owner_of[share] = number
    for step in range(6):
        assert torch.equal(found.owners[step], owner_of[truth.batch(step)])
    for message in found.seen_by(EVERYTHING, (0,), ("stem_gradient",)):
        owner = told.trained.topology.owners.index(message.sender)
        assert torch.equal(message.rows, (found.owners[0] == owner).nonzero().flatten())


def test_a_message_without_kept_rows_is_not_kept():
    message = Message(
        0, "train", "a", "b", "activation", "one", None, torch.rand(2, 3), torch.tensor([0, 2])
    )
    assert renumbered(message, torch.tensor([2, 0, 1]), 1) is None


@pytest.mark.parametrize(
    "policy, words",
    [
        ({"kinds": ("activations",)}, "kinds are samples, labels, activation"),
        ({"kinds": "activation"}, r"capture.kinds=\[activation\]"),
        ({"links": (((1, 2), 3),)}, "a pair of two"),
        ({"links": ((1, 2, 3),)}, "a pair of two"),
        ({"links": ((4, 4),)}, "a pair of two"),
        ({"links": 3}, r"capture.links=\[3,7\]"),
        ({"reservoir": -1}, "capture.reservoir=-1"),
        ({"samples": 1.5}, "capture.samples=1.5"),
        ({"half": "yes"}, "true or false"),
        ({"reservoir": 3, "every": 2}, "type one of them"),
        ({"samples": 3, "every": 2}, "type one of them"),
        ({"samples": 3, "reservoir": 2}, "type one of them"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(policy, words):
    with pytest.raises(UsageError, match=words):
        Capture(**policy)


def test_a_link_of_nobody_is_refused_before_training(told, tmp_path):
    with pytest.raises(UsageError, match="'device-9', which takes no part; parties are device-0"):
        recorded(told, tmp_path, Capture(links=((0, 9),)))


def test_pairs_may_be_lists_as_in_a_yaml():
    assert Capture(links=([0, 1], 2)) == Capture(links=((0, 1), 2))


def test_a_policy_says_what_it_is():
    assert str(Capture()) == "every step"
    told = str(Capture(links=(3, (4, "server")), half=True, reservoir=20, last=False))
    assert told == "last=false links=[3,[4,server]] reservoir=20 half=true"
