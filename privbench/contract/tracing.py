"""A network as a graph of calls, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from privbench.errors import UsageError


def traced(module: nn.Module) -> fx.GraphModule:
    """The calls of a network's forward pass, as torch.fx records them.

    torch's own modules are single calls, a user's are looked into. One whose forward pass cannot be
    traced (it branches on values) is a single call too.

    Args:
        module: any network; it is not changed.

    Raises:
        UsageError: the outermost forward pass itself cannot be traced.
    """
    single: set[str] = set()
    while True:
        try:
            return fx.GraphModule(module, _Tracer(frozenset(single)).trace(module))
        except _OpaqueError as found:
            single.add(found.path)
        except Exception as cause:  # whatever user code raises when it is fed symbols
            raise UsageError(
                f"the network {type(module).__name__} cannot be traced: {' '.join(str(cause).split())}; "
                "its own forward pass must not branch on values or shapes: move such code into a "
                "module of its own"
            ) from cause


class _OpaqueError(Exception):
    """A module's forward pass cannot be traced."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Tracer(fx.Tracer):
    def __init__(self, single: frozenset[str]) -> None:
        super().__init__()
        self._single = single

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._single or super().is_leaf_module(
            m, module_qualified_name
        )

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except _OpaqueError:
            raise
        except Exception as cause:  # whatever user code raises when it is fed symbols
            raise _OpaqueError(self.path_of_module(m)) from cause
