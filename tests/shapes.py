"""Holds our functions and dataclasses to the shapes in their signatures while tests run.

Not jaxtyping's own hook: it wraps every function, six in seven of which name no shape; it judges arguments
before the function can refuse them, so that a test of a refusal would see another error; and an
annotation that cannot be evaluated counts for it as none.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, UnionType

import jaxtyping
import numpy as np
from torch import Tensor
from torch.fx import Proxy

KINDS = {name for name, kind in vars(jaxtyping).items() if isinstance(kind, type(jaxtyping.Float))}

Hints = Mapping[str, object]


class ShapeError(AssertionError):
    """A call went well with a shape or dtype that its signature denies."""


def check(module: ModuleType) -> None:
    """Replace what a module defines, and names a shape, by a version that looks at shapes."""
    scope = vars(module)
    words = KINDS | {name for name, value in scope.items() if holds_shape(value)}
    for owner in (module, *_classes(module, module.__name__)):
        for name, member in list(vars(owner).items()):
            if getattr(member, "__module__", module.__name__) == module.__name__:
                looking = _looking(member, scope, words)
                if looking is not member:
                    setattr(owner, name, looking)
        maker = "__new__" if hasattr(owner, "_fields") else "__init__"
        if isinstance(owner, type) and maker in vars(owner) and _is_record(owner):
            if hints := _shaped(owner.__annotations__, scope, words):
                setattr(owner, maker, _record(getattr(owner, maker), hints))


def _classes(owner: object, module: str) -> Iterator[type]:
    for value in list(vars(owner).values()):
        if isinstance(value, type) and value.__module__ == module:
            yield value
            yield from _classes(value, module)


def _is_record(owner: type) -> bool:
    return dataclasses.is_dataclass(owner) or issubclass(owner, tuple)


def _looking(member: object, scope: dict[str, object], words: set[str]) -> object:
    if isinstance(member, classmethod | staticmethod):
        inner = _looking(member.__func__, scope, words)
        return member if inner is member.__func__ else type(member)(inner)
    if isinstance(member, property):
        inner = _looking(member.fget, scope, words)
        return member if inner is member.fget else member.getter(inner)
    if isinstance(member, functools.cached_property):
        member.func = _looking(member.func, scope, words)
        return member
    if not inspect.isfunction(member) or "<string>" in member.__code__.co_filename:
        return member  # a dataclass's own methods have no file
    hints = _shaped(inspect.unwrap(member).__annotations__, scope, words)
    return _calls(member, hints) if hints else member


def _shaped(texts: Hints, scope: dict[str, object], words: set[str]) -> Hints:
    """The annotations that name a shape, evaluated."""
    hints = {}
    for name, hint in texts.items():
        text = getattr(hint, "__forward_arg__", hint)  # so a NamedTuple keeps them
        if isinstance(text, str) and not words.isdisjoint(re.findall(r"\w+", text)):
            try:
                hints[name] = eval(text, scope)
            except Exception as cause:
                raise ShapeError(
                    f"{scope['__name__']}: {name}: {text} cannot be read: {cause}"
                ) from cause
    return {name: hint for name, hint in hints.items() if holds_shape(hint)}


def _calls(function: Callable[..., object], hints: Hints) -> Callable[..., object]:
    parameters = tuple(
        inspect.signature(function).parameters
    )  # none of ours has a shape behind a *
    given = {name: hint for name, hint in hints.items() if name != "return"}
    one, *_ = typing.get_args(hints.get("return")) or [None]
    of_call, of_item = _Judge(function, hints), _Judge(function, {**given, "yield": one})

    @functools.wraps(function)
    def looking(*args: object, **kwargs: object) -> object:
        result = function(*args, **kwargs)  # first: it may refuse in its own words
        of_call({**dict(zip(parameters, args, strict=False)), **kwargs, "return": result})
        return result

    @functools.wraps(function)
    def yielding(*args: object, **kwargs: object) -> Iterator[object]:
        for result in function(*args, **kwargs):
            of_item({**dict(zip(parameters, args, strict=False)), **kwargs, "yield": result})
            yield result

    return yielding if inspect.isgeneratorfunction(function) else looking


def _record(maker: Callable[..., object], hints: Hints) -> Callable[..., object]:
    """What makes a record; judged are its fields, which may be more than what was given."""
    judge = _Judge(maker, hints)

    @functools.wraps(maker)
    def looking(first: object, *args: object, **kwargs: object) -> object:
        result = maker(first, *args, **kwargs)
        record = first if result is None else result
        judge({name: getattr(record, name) for name in hints})
        return result

    return looking


class _Judge:
    """Says of values by name whether they have the shapes that were hinted.

    Most calls have shapes that an earlier one had, and fit as that did: they cost no second look.
    """

    def __init__(self, owner: Callable[..., object], hints: Hints) -> None:
        self.owner, self.hints = owner, hints
        self.fitted: set[object] = set()

    def __call__(self, values: Mapping[str, object]) -> None:
        found = tuple([_seen(values[name]) if name in values else None for name in self.hints])
        if found in self.fitted:
            return
        with jaxtyping.jaxtyped("context"):  # within which a name stands for one size
            for name, hint in self.hints.items():
                if name in values and (why := misfit(values[name], hint)):
                    shape = tuple(getattr(values[name], "shape", ()))
                    where = f"{self.owner.__module__}.{self.owner.__qualname__}"
                    raise ShapeError(f"{where}: {name} {shape}: {why}; {hint}")
        self.fitted.add(found)


def _seen(value: object) -> object:
    """All that ``misfit`` looks at."""
    kind = type(value)
    if kind is Tensor or kind is np.ndarray:
        return kind, value.dtype, value.shape
    if isinstance(value, list | tuple):
        return kind, tuple(map(_seen, value))
    if isinstance(value, Mapping):
        return kind, tuple(map(_seen, value.values()))
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, Proxy):
        return kind, value.dtype, tuple(value.shape)
    return kind


def misfit(value: object, hint: object) -> str:
    """Why the value has not the shapes that the hint names; empty where it has."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        traced = isinstance(value, Proxy)  # stands for a tensor of any shape
        return "" if traced else hint.__instancecheck_str__(value)
    if not holds_shape(hint):
        return ""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return _of_one(value, inner)
    if isinstance(value, Mapping):
        pairs = [(one, inner[-1]) for one in value.values()]
    elif isinstance(value, tuple) and origin is tuple and inner[-1] is not ...:
        pairs = list(zip(value, inner, strict=True))
    elif isinstance(value, list | tuple):
        pairs = [(one, inner[0]) for one in value]
    else:
        pairs = []  # an iterator's items are not ours to take, a function's arguments are judged by it
    return next((why for one, part in pairs if (why := misfit(one, part))), "")


def _of_one(value: object, hints: tuple[object, ...]) -> str:
    whys = []
    for hint in hints:
        kind = int | float if hint is float else typing.get_origin(hint) or hint
        if holds_shape(hint):
            whys.append(misfit(value, hint))
        elif not isinstance(kind, type | UnionType) or isinstance(value, kind):
            return ""
    return "" if "" in whys else "; ".join(whys)


def holds_shape(hint: object) -> bool:
    """Does an evaluated annotation name a shape anywhere?"""
    if isinstance(hint, list):  # the arguments of a Callable
        return any(map(holds_shape, hint))
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(holds_shape, typing.get_args(hint)))
