"""What the codec carries, what it refuses, and that a damaged file says so."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from privbench.contract import (
    InversionGuess,
    LabelGuess,
    MembershipGuess,
    Message,
    Net,
    Own,
    Public,
    ReconstructionGuess,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
)
from privbench.errors import PluginError, StorageError
from privbench.wire import codec

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.complex64, torch.complex128, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.uint16, torch.bool,
)  # fmt: skip


def same(one: Any, two: Any) -> bool:
    """Equal in type, structure and every bit."""
    if isinstance(one, Tensor):
        raw = [t.resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (one, two)]
        return one.dtype == two.dtype and one.shape == two.shape and torch.equal(*raw)
    if type(one) is not type(two):
        return False
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(two, f.name)) for f in fields(one))
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    return bool(one == two) or (one != one and two != two)


def a_view(messages: int = 5) -> View:
    rows = torch.arange(3)
    spec = Spec("torch.nn.Linear", {"in_features": 4, "out_features": 2})
    net = Net(spec, {"weight": torch.rand(2, 4), "bias": torch.rand(2)})
    return View(
        seat=Seat("host-1", "infrastructure", ("device-1",), grants=frozenset({"labels"})),
        topology=Topology("slicenet", ("device-1", "owner"), ("owner",), net, 10, 5),
        victims=torch.tensor([[0, 1], [2, 3]]),
        messages=tuple(
            Message(s, "train", "owner", "device-1", "activation", "net.1", (0, 2),
                    torch.rand(3, 2), rows)
            for s in range(messages)
        ),
        own=Own(torch.tensor([[0, 0]]), Samples(torch.rand(1, 1, 2, 2))),
        public=Public(net=net, candidates=Samples(torch.rand(2, 4), torch.tensor([0, 1]))),
        oracle=lambda x: x,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_and_form(dtype: torch.dtype) -> None:
    numbers = torch.arange(24).to(dtype).reshape(2, 3, 4)
    forms = [numbers, numbers[1, 2, 3], numbers[:0], numbers.transpose(0, 2), numbers[:, 1:, ::2]]
    assert same(codec.decode(codec.encode(forms)), forms)


def test_plain_values_keep_their_type() -> None:
    tree = {
        "none": None, "flags": (True, False, 1, 0), "numbers": [1, 1.0, -0.0, 1e300, 2**70, 0.1],
        "words": ("", "ä\n\"", "#", "t"), "nested": ((), [], {}, ({"a": [()]},)),
        "sets": (frozenset(), frozenset({"b", "a"}), frozenset({1, 2.5})),
    }  # fmt: skip
    back = codec.decode(codec.encode(tree))
    assert same(back, tree)
    assert math.copysign(1, back["numbers"][2]) == -1
    odd = codec.decode(codec.encode((math.inf, -math.inf, math.nan)))
    assert odd[:2] == (math.inf, -math.inf) and math.isnan(odd[2])


def test_a_view_comes_back_without_its_oracle(tmp_path: Path) -> None:
    view = a_view()
    codec.save(view, tmp_path / "view")
    for back in (codec.decode(codec.encode(view)), codec.load(tmp_path / "view")):
        assert back.oracle is None
        assert same(back, codec.decode(codec.encode(back)))
        assert same(back.messages, view.messages) and back.seat == view.seat
        assert torch.equal(back.public.net.module().weight, view.public.net.weights["weight"])


def test_no_graph_and_no_shared_storage(tmp_path: Path) -> None:
    weights = nn.Parameter(torch.rand(4))
    given = (weights, weights * 2, torch.ones(3))
    codec.save(given, tmp_path / "file")
    for back in (codec.decode(codec.encode(given)), codec.load(tmp_path / "file")):
        assert all(type(t) is Tensor and t.grad_fn is None and not t.requires_grad for t in back)
        back[2].zero_()
        assert given[2].sum() == 3
    assert codec.load(tmp_path / "file")[2].sum() == 3, "writing must not reach the file"


def test_equal_tensor_objects_are_stored_once() -> None:
    big = torch.rand(1000)
    once, thrice = codec.encode([big]), codec.encode([big, big, big.view(1000)])
    assert len(thrice) < len(once) + 400
    assert len(codec.encode([big, big[:500]])) > len(once) + 1900, "a part of it is another tensor"


def test_tensors_are_aligned_wherever_they_are_decoded(tmp_path: Path) -> None:
    given = [torch.rand(n) for n in (1, 7, 33)]
    codec.save(given, tmp_path / "file")
    for back in (codec.decode(codec.encode(given)), codec.load(tmp_path / "file")):
        assert [t.data_ptr() % 64 for t in back] == [0, 0, 0]


def test_guesses_are_checked_again_when_they_come_back() -> None:
    for guess in (
        MembershipGuess(torch.rand(3), threshold=0.5),
        ReconstructionGuess(torch.zeros(2, 2, dtype=torch.int64), torch.rand(2, 1, 4, 4)),
        InversionGuess(torch.rand(10, 1, 4, 4)),
        LabelGuess(torch.zeros(2, 2, dtype=torch.int64), torch.tensor([0, 3])),
    ):
        assert same(codec.decode(codec.encode(guess)), guess)
    good = codec.encode(Seat("a", "peer", grants=frozenset({"labels"})))
    with pytest.raises(Exception, match="unknown grant"):
        codec.decode(good.replace(b"labels", b"lapels"))


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ({"a": [1, {2}]}, r"dict\['a'\]\[1\].*builtins.set"),
        (Spec("x.Y", {"net": nn.Linear(1, 1)}), r"Spec.kwargs\['net'\].*Linear"),
        ({1: 2}, "key 1"),
        ((print,), "builtin_function"),
        (frozenset({(1, 2)}), "plain values"),
        (torch.eye(2).to_sparse(), "sparse"),
        (Path("x"), "PosixPath|WindowsPath"),
        (torch.rand(2).numpy()[0], "numpy.float32"),
    ],
)
def test_anything_else_is_refused_with_its_place(thing: Any, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        codec.encode(thing)


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1, -700])
def test_a_file_cut_short_says_so(tmp_path: Path, keep: int) -> None:
    data = codec.encode([torch.rand(200), "text"])
    (tmp_path / "cut").write_bytes(data[:keep])
    with pytest.raises(StorageError, match="delete it and run again"):
        codec.load(tmp_path / "cut")
    with pytest.raises(StorageError):
        codec.decode(data[:keep])


def test_damage_is_told_not_executed(tmp_path: Path) -> None:
    data = codec.encode([torch.rand(4), Spec("a.b")])
    for old, new in ((b"float32", b"Tensor."), (b"Spec", b"Span"), (b'"tree', b'"twig')):
        with pytest.raises(StorageError):
            codec.decode(data.replace(old, new.ljust(len(old))))
    with pytest.raises(StorageError):
        codec.decode(b"\x80\x04pickle me not, said the file" * 3)
    with pytest.raises(StorageError, match="cannot read"):
        codec.load(tmp_path / "absent")


def test_a_table_that_points_outside_is_refused() -> None:
    data = codec.encode([torch.rand(16)])
    with pytest.raises(StorageError, match="outside"):
        codec.decode(data.replace(b"[16]", b"[99]"))


def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        codec.save([1], tmp_path / "file" / "below")
    with pytest.raises(PluginError):
        codec.save([{1}], tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "nothing half-written is left"


def test_it_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    codec.save(a_view(), tmp_path / "view")
    with safe_open(tmp_path / "view", framework="pt") as file:
        assert file.keys() == ["bytes"]
        assert "host-1" in file.metadata()["privbench"]


def test_canonical_bytes_do_not_depend_on_the_order_of_keys() -> None:
    one = {"a": torch.ones(2), "b": {"x": 1, "y": torch.zeros(1)}}
    two = {"b": {"y": torch.zeros(1), "x": 1}, "a": torch.ones(2)}
    assert b"".join(codec.canonical(one)) == b"".join(codec.canonical(two))
    assert codec.encode(one) != codec.encode(two)
