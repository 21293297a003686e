"""Responses kept on disk by content: the same question to the same model is never sampled twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isentropic.files import cache_folder

if TYPE_CHECKING:
    from isentropic.responses.sample import Tokens

log = logging.getLogger("isentropic")


def sha256_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def kept_file(key: str) -> Path:
    return cache_folder() / "responses" / f"{key[:32]}.json"


def read_kept(key: str) -> list[list[Tokens]] | None:
    """The responses kept under a key; None where there are none,
    or where the file is not as it was written."""
    try:
        content = json.loads(kept_file(key).read_text(encoding="utf-8"))
        responses = content["responses"]
        if content["sha256"] != sha256_of([key, responses]):
            return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return [[tuple(response) for response in drawn] for drawn in responses]


def keep(key: str, responses: Sequence[Sequence[Tokens]]) -> None:
    """Keep responses for the next time. A cache that cannot be written is done without,
    and that is said once."""
    file = kept_file(key)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    content = {"sha256": sha256_of([key, responses]), "responses": responses}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        tell_once(
            f"responses cannot be kept in {str(file.parent)!r} ({error.strerror}); continuing without that "
            "cache"
        )
        with contextlib.suppress(OSError):
            temporary.unlink()


@cache
def tell_once(text: str) -> None:
    log.warning("%s", text)
