"""The one rule for what others wrote: whatever a library raises while it reads that becomes one line with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from isentropic.errors import InputError

LONGEST_REASON = 300


@contextmanager
def reading(what: str, advice: str) -> Iterator[None]:
    """Turn what a library raises while it reads a model, a tokenizer, an adapter or a template into one line.

    Put it around calls of that library only: an exception of our own code is a bug, and keeps its traceback.

    Example:
        >>> with reading("the chat template", "give --no-chat"):
        ...     raise LookupError("no such role")
        Traceback (most recent call last):
            ...
        isentropic.errors.InputError: the chat template cannot be used (no such role); give --no-chat
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} cannot be used ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (KeyError, AttributeError, TypeError, IndexError, AssertionError)):
        text = f"{type(error).__name__}: {text}" if text != type(error).__name__ else text
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
