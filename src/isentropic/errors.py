"""The error for bad input."""

from __future__ import annotations


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one line with four parts: what is wrong, the value, why it matters, what to do. The command
    line prints it without a traceback and exits with code 2; anything else that is raised keeps its
    traceback.

    Example:
        >>> raise InputError("target_gap is -1; a gap is a distance in nats, give a number above 0")
        Traceback (most recent call last):
            ...
        isentropic.errors.InputError: target_gap is -1; a gap is a distance in nats, give a number above 0
    """
