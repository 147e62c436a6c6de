"""The rules that every defense keeps."""

from __future__ import annotations

import re

import torch

from privbench.checks.stage import Workshop
from privbench.contract import KINDS, LearningDefense, Message, MessageDefense, no_rows
from privbench.contract.message import ROW_KINDS
from privbench.errors import PluginError


def cites_its_source(name: str, defense: MessageDefense | LearningDefense, shop: Workshop) -> None:
    """``source`` says where it comes from; the docstring what it does."""
    cited(type(defense))


def sends_whole_messages(
    name: str, defense: MessageDefense | LearningDefense, shop: Workshop
) -> None:
    """What comes out has the kind, rows, shape and dtype that went in, and finite values."""
    if not isinstance(defense, MessageDefense):
        return
    for unknown in sorted(set(defense.kinds) - set(KINDS)):
        raise PluginError(f"kinds names '{unknown}'; kinds are {', '.join(KINDS)}")
    for kind in defense.kinds:
        message = _message(kind)
        before = message.payload.clone()
        sent = defense.send(message, torch.Generator().manual_seed(0))
        if not torch.equal(message.payload, before):
            raise PluginError("send changed the message it was given; return a new one")
        alike = (sent.kind, sent.payload.shape, sent.payload.dtype)
        if alike != (kind, before.shape, before.dtype) or not torch.equal(sent.rows, message.rows):
            raise PluginError("send must keep kind, rows, shape and dtype")
        if defense.double and not torch.equal(sent.payload, before):
            raise PluginError("a double sends what it was given")
        if not bool(torch.isfinite(sent.payload).all()):
            raise PluginError("send gave NaN or infinite values")


def repeats_itself(name: str, defense: MessageDefense | LearningDefense, shop: Workshop) -> None:
    """Same message, same generator: the same bits; the global generator is left alone."""
    if not isinstance(defense, MessageDefense):
        return
    state = torch.get_rng_state()
    message = _message(defense.kinds[0])
    one, other = (defense.send(message, torch.Generator().manual_seed(3)) for _ in range(2))
    if not torch.equal(one.payload, other.payload):
        raise PluginError("the same seed gave different messages; draw from rng alone")
    if not torch.equal(state, torch.get_rng_state()):
        raise PluginError("send used the global random generator; draw from rng alone")


def resolves_its_budget(
    name: str, defense: MessageDefense | LearningDefense, shop: Workshop
) -> None:
    """A learning defense that is resolved states its cost, and resolving again changes nothing."""
    if not isinstance(defense, LearningDefense):
        return
    resolved = defense.resolved(records=200, batch=50, steps=40)
    if resolved.resolved(200, 50, 40) != resolved:
        raise PluginError("resolving twice gave another defense")
    cost, wanted = resolved.cost(), getattr(defense, "epsilon", None)
    if cost is not None and wanted is not None and cost.epsilon > wanted + 1e-6:
        raise PluginError(f"epsilon {cost.epsilon:.4f} exceeds the {wanted} that was asked for")


def cited(kind: type) -> None:
    """Does a plug-in's class say where it comes from, and what it does?

    Raises:
        PluginError: ``source`` names no year and no reason, or there is no docstring (a dataclass
            without one gets its signature).
    """
    if not re.search(r"(19|20)\d\d|^none: \w", getattr(kind, "source", "")):
        raise PluginError(
            f"{kind.__name__}.source must cite authors, title, year and link, or say 'none: ' and "
            "why there is no paper"
        )
    text = (kind.__doc__ or "").strip()
    if not text or text.startswith(f"{kind.__name__}("):
        raise PluginError(f"{kind.__name__} has no docstring")


RULES = (cites_its_source, sends_whole_messages, repeats_itself, resolves_its_budget)


def _message(kind: str) -> Message:
    values = torch.linspace(-1, 1, 24).reshape(4, 6)
    rows = torch.arange(4) if kind in ROW_KINDS else no_rows()
    return Message(0, "train", "device-0", "device-1", kind, "layer", None, values, rows)
