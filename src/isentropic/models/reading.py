"""The one rule for what others wrote: whatever a library raises while it reads that becomes one line with its
reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from isentropic.errors import InputError
from isentropic.files import disk_fault

LONGEST_REASON = 300
FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@contextmanager
def reading(failure: str, advice: str) -> Iterator[None]:
    """Turn what a library raises while it reads a model, a tokenizer, an adapter or a template into one line.

    Put it around calls of that library only: an exception of our own code is a bug, and keeps its traceback.
    A full disk is not a fault of what is read, and is raised as it is.

    Example:
        >>> with reading("the chat template cannot be used", "give --no-chat"):
        ...     raise ValueError("no such role")
        Traceback (most recent call last):
            ...
        isentropic.errors.InputError: the chat template cannot be used (no such role); give --no-chat
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if str(disk_fault(error)).endswith(FULL):
            raise
        if "trust_remote_code" in str(error):
            advice = (
                "that code is not run unless you give --trust_remote_code, which you should only do if you "
                "trust it"
            )
        raise InputError(f"{failure} ({reason(error)}); {advice}") from error


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = " ".join(str(error).split())
    if not text or isinstance(error, (LookupError, AttributeError, TypeError, AssertionError)):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."
