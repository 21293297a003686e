"""Files: written, read, and where they are kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isentropic.errors import InputError


def cache_folder() -> Path:
    """``$ISENTROPIC_CACHE``, else ``isentropic`` in the user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``)."""
    given = os.environ.get("ISENTROPIC_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isentropic"


def check_room(folder: Path, needed: int) -> None:
    """Refuse before writing what the disk cannot hold. ``needed`` in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"the disk of {str(folder)!r} has {free / 1e6:.1f} MB free and about {needed / 1e6:.1f} MB are needed; a "
            f"half-written model is of no use; make room or choose another folder"
        )


def write_json(path: Path, content: Any) -> None:
    path.write_text(
        json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that an earlier run wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        content = error
    if not isinstance(content, dict):
        raise InputError(
            f"{str(path)!r} is damaged; the run cannot be told from another; give another --run_name, or --overwrite"
        )
    return content


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
