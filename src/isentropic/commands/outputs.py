"""Where results go: refused before the work where they cannot be written, and never over what is not ours."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from isentropic.errors import InputError

_OURS = (
    rb'\s*\{\s*"schema": "isentropic\.(measure|compare|ability|behaviour)/',  # a summary
    rb'[^\n]*"prompt_ids": \[[^\n]*"response_ids": \[[^\n]*"entropy": ',  # scored responses
    rb'<!doctype html>.*<meta name="generator" content="isentropic">',  # a report
    rb".*<!-- generator: isentropic -->\s*$",  # a report as Markdown
)


def check_outputs(
    outputs: Mapping[str, str | None], inputs: Mapping[str, str | None], *, overwrite: bool = False
) -> None:
    """Refuse a file that could not be written after the work, or whose content would be lost.

    A result that isentropic wrote, outside a run folder, may be replaced; so may an empty file. ``overwrite``
    lets any other file be replaced, but never one that is read here.

    Args:
        outputs: flag -> the file it names, or None.
        inputs: flag -> the file or folder that is read, or None.

    Raises:
        InputError: with one line for each fault.
    """
    faults = []
    seen: dict[str, str] = {}
    for flag, name in outputs.items():
        if name is None:
            continue
        path = os.path.realpath(name)
        read = next((other for other, source in inputs.items() if source and same_file(path, source)), None)
        if path in seen:
            faults.append(f"{flag} and {seen[path]} both name {name!r}; one would be lost; give another file")
        elif read is not None:
            faults.append(f"{flag} {name!r} is what {read} reads; it would be lost; give another file")
        elif fault := write_fault(Path(path), overwrite):
            faults.append(f"{flag} {name!r} cannot be written: {fault}")
        seen[path] = flag
    if faults:
        raise InputError("\n".join(faults))


def same_file(path: str, other: str) -> bool:
    """Whether two names lead to one file, by links or otherwise."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return path == os.path.realpath(other)


def write_fault(path: Path, overwrite: bool) -> str | None:
    """Why a file cannot be written, found out by a trial that leaves nothing behind; None where it can."""
    if os.path.isdir(path):
        return "it is a folder; give a file"
    if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe
        return None
    if not os.path.isdir(path.parent):
        return f"the folder {str(path.parent)!r} does not exist; make it, or give another file"
    try:
        if os.path.isfile(path):
            with path.open("r+b"):
                pass
            if not (overwrite or is_ours(path)):
                return (
                    "it exists and is not a result of isentropic, so its content would be lost; give another "
                    "file"
                )
        else:
            path.touch()
            path.unlink()
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        return f"{error.strerror}; give another file"
    return None


def is_ours(path: Path) -> bool:
    """Whether a file is empty or a separate result of isentropic; the files of a run belong to the run."""
    if b"isentropic.config/" in _start(path.parent / "config.json"):
        return False
    content = _start(path, 2**24)
    return not content.strip() or any(re.match(mark, content, re.DOTALL) for mark in _OURS)


def _start(path: Path, size: int = 2**12) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""
