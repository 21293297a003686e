"""Responses kept on disk by content, with what is known of their entropies: the same question to the same
model is never sampled twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from isentropic.files import cache_folder
from isentropic.responses.response import Entropies, Tokens

log = logging.getLogger("isentropic")


def sha256_of(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def kept_file(key: str) -> Path:
    return cache_folder() / "responses" / f"{key[:32]}.json"


def read_kept(key: str) -> tuple[list[list[Tokens]], Entropies] | None:
    """The responses kept under a key, and what is known of them; None where there are none,
    or where the file is not as it was written."""
    try:
        content = json.loads(kept_file(key).read_text(encoding="utf-8"))
        responses, entropies = content["responses"], content["entropies"]
        if content["sha256"] != sha256_of([key, responses, entropies]):
            return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    known = {(tuple(prompt), tuple(response)): value for prompt, response, value in entropies}
    return [[tuple(response) for response in drawn] for drawn in responses], known


def keep(key: str, responses: Sequence[Sequence[Tokens]], known: Entropies) -> None:
    """Keep responses and their entropies for the next time. A cache that cannot be written is done without,
    and that is said once."""
    file = kept_file(key)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    entropies = [[*pair, value] for pair, value in known.items()]
    sha256 = sha256_of([key, responses, entropies])
    content = {"sha256": sha256, "responses": responses, "entropies": entropies}
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
