"""Text as it is read from JSON, as it is compared, and as it is shown to a person."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""C0 and C1 controls but for tab and line feed; the marks that turn the direction of writing;
line separators."""
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point: nothing is drawn for these."""
_HALF = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with its control characters written out, so that a terminal shows them and does not obey them.

    Example:
        >>> visible("a\\x1b[31mb")
        'a\\\\u001b[31mb'
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def never_fail(stream: object) -> None:
    """Let a stream replace what its encoding cannot show: a sign on the screen must not cost a result."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")


def plain(text: str) -> str:
    """What two texts have in common that look the same: NFC, without invisible characters,
    every gap one space.

    Example:
        >>> plain("cafe\\u0301\\u200b  now") == plain("caf\\u00e9 now")
        True
    """
    return " ".join(unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).split())


def half_character(text: str) -> str | None:
    """The first half of a surrogate pair without its other half, written out;
    such a text cannot be saved as UTF-8.

    Example:
        >>> half_character("a \\ud83d"), half_character("a")
        ('\\\\ud83d', None)
    """
    found = _HALF.search(text)
    return f"\\u{ord(found[0]):04x}" if found else None


def is_text(value: object) -> bool:
    """Whether a value is text that a model can read: more than space, and whole characters.

    Example:
        >>> is_text("a"), is_text(" "), is_text(None), is_text("\\ud83d")
        (True, False, False, False)
    """
    return isinstance(value, str) and bool(value.strip()) and half_character(value) is None


def short(value: object) -> str:
    """A value for an error message: its ``repr``, cut after 60 characters.

    Example:
        >>> short("x" * 100)[-5:]
        "xxx…'"
    """
    if isinstance(value, (str, bytes)) and len(value) > 200:
        value = value[:200]
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4300 digits; endless nesting
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def json_value(text: str) -> Any:
    """The value a JSON text holds.

    Raises:
        ValueError: it holds none; the message is a short reason with the place.

    Example:
        >>> json_value('{"a": 1')
        Traceback (most recent call last):
            ...
        ValueError: Expecting ',' delimiter at line 1, column 8
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it has a number of more than 4300 digits") from None
