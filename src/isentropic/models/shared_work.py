"""Work that processes share out among them: each measures a part, all get the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import distributed, nn

from isentropic.models.sharding import sharding_of

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_together: ContextVar[bool] = ContextVar("together", default=False)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Inside the block every process is asked for the same; :func:`shared_out` may then divide the work."""
    token = _together.set(True)
    try:
        yield
    finally:
        _together.reset(token)


def shared_out(
    model: nn.Module, pieces: Sequence[Piece], work: Callable[[Sequence[Piece]], dict[Piece, Result]]
) -> dict[Piece, Result]:
    """``work(pieces)``: the result of each piece. Processes that work :func:`together` do a part each and
    get the results of all; pieces that are sorted by size are divided evenly."""
    if not divides(model):
        return work(pieces)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, work(pieces[rank::world]))
    return {piece: result for part in parts for piece, result in part.items()}


def agreed(model: nn.Module, said: bool) -> bool:
    """Whether all processes that work :func:`together` say so."""
    world = distributed.get_world_size() if divides(model) else 1
    return all(shared_out(model, range(world), lambda ranks: dict.fromkeys(ranks, said)).values())


def divides(model: nn.Module) -> bool:
    """Whether processes share out the work on a model. One that is sharded needs all in each forward pass."""
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    return _together.get() and several and sharding_of(model) is None
