"""The one error that stands for bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line of four beats: what is wrong, the value, why it matters, what to do. The command
    line prints it without a traceback and exits with code 2; anything else that is raised keeps its traceback.

    Example:
        >>> raise InputError("target_gap is -1; a gap is a distance in nats, give a number above 0")
        Traceback (most recent call last):
            ...
        isentropic.errors.InputError: target_gap is -1; a gap is a distance in nats, give a number above 0
    """
