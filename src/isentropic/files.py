"""Files: written whole or not at all, read, sealed with hashes, and where the cache is kept."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from isentropic.errors import InputError

MANIFEST = "manifest.json"
"""In a sealed folder: the hash of every other file. It is written last,
so a folder without it is not whole."""
TEMPORARY = ".{name}.{pid}.tmp"
"""A file on its way to its name, in the same folder."""


def cache_folder() -> Path:
    """``$ISENTROPIC_CACHE``, else ``isentropic`` in the user's cache folder (``$XDG_CACHE_HOME`` or
    ``~/.cache``).

    A user without a home, as in some containers, has it among the temporary files.
    """
    if given := os.environ.get("ISENTROPIC_CACHE"):
        return Path(os.path.expanduser(given))
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "isentropic"
    home = os.path.expanduser("~")
    if home == "~":
        return Path(tempfile.gettempdir()) / f"isentropic-{os.getuid()}"
    return Path(home) / ".cache" / "isentropic"


def check_room(folder: Path, needed: int) -> None:
    """Refuse before writing what the disk cannot hold. ``needed`` in bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"the disk of {str(folder)!r} has {free / 1e6:.1f} MB free and about {needed / 1e6:.1f} MB are "
            "needed; a half-written model is useless; free some space or choose another folder"
        )


# --- Writing ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which takes the place of ``path`` when the block ends without an
    error.

    A reader sees the old file or the new one, never a part, even after a crash or a power cut.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "facts.txt"
        >>> with replacing(file) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> file.read_text(), len(list(file.parent.iterdir()))
        ('whole', 1)
    """
    if path.exists() and not path.is_file():
        yield path  # a device or a pipe is written to, never replaced
        return
    path = path.resolve()  # a link still points to its file
    temporary = path.with_name(TEMPORARY.format(name=path.name[:50], pid=os.getpid()))
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk, where the file system can tell."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text in one move. Line ends are kept as they are."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows in one move, one by one: they need not be in memory together."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(json_line(row).encode("utf-8") for row in rows)


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Add one line to the end of a file; a crash can cut this line short, but no earlier one."""
    with path.open("ab") as file:
        file.write(json_line(row).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def json_line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


# --- Reading ------------------------------------------------------------------------------------------------


def load_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged; the message is a short reason that names the line where it can.
    """
    try:
        return json_object(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``; ValueError with a short reason otherwise."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("line 1: nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("line 1: not a JSON object")
    return value


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """The lines of a JSONL file that are not blank, by number: the object, or why it cannot be read.

    What to do about a damaged line is the caller's decision: leave it out, stop there, or refuse the file.
    """
    # Only \n ends a line: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json_object(line.removesuffix(b"\n"))
                except ValueError as error:
                    yield number, error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that an earlier run wrote."""
    try:
        return load_object(path)
    except (FileNotFoundError, ValueError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(
            f"{str(path)!r} is damaged ({reason}); without it the run cannot be identified; restore the "
            "file, or give another --run_name"
        ) from error


# --- Sealed folders -----------------------------------------------------------------------------------------


def seal(folder: Path) -> None:
    """Declare a folder complete: its files are on the disk, and their hashes are in its manifest."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    hashes = {name: file_sha256(folder / name) for name in names if name != MANIFEST}
    for name in hashes:
        sync(folder / name)
    write_json(folder / MANIFEST, {"schema": "isentropic.manifest/1", "files": hashes})
    sync(folder)


def broken_seal(folder: Path) -> str | None:
    """Why a folder is not whole: never sealed, a file missing, or a hash that does not fit; None where it is.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "weights").write_bytes(b"1234")
        >>> broken_seal(folder)
        'it is incomplete'
        >>> seal(folder)
        >>> broken_seal(folder)
        >>> _ = (folder / "weights").write_bytes(b"1235")
        >>> broken_seal(folder)
        "'weights' is damaged"
    """
    try:
        hashes = load_object(folder / MANIFEST)["files"]
        for name, sha256 in hashes.items():
            if file_sha256(folder / name) != sha256:
                return f"{name!r} is damaged"
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        return "it is incomplete" if name == MANIFEST else f"{name!r} is missing"
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"{MANIFEST!r} is damaged"
    except OSError as error:
        return f"{Path(str(error.filename)).name!r} cannot be read ({error.strerror})"
    return None


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# --- Errors of the disk -------------------------------------------------------------------------------------

_DISK = {
    getattr(errno, name)
    for name in (
        "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EIO ENAMETOOLONG EISDIR ENOTDIR EBUSY ESTALE EMFILE ENFILE"
    ).split()
    if hasattr(errno, name)
}
_WORDS = (  # of torch, whose writer keeps the reason to itself
    "PytorchStreamWriter failed writing",
    "inline_container.cc",
    "basic_ios::clear: iostream error",
)


def disk_fault(error: BaseException | None) -> str | None:
    """What the disk refused, if that is what the error, or one that it came from, is about.

    Example:
        >>> disk_fault(OSError(errno.ENOSPC, "No space left on device", "final/model.safetensors"))
        "'final/model.safetensors': No space left on device"
        >>> disk_fault(RuntimeError("I/O error: File too large (os error 27)"))
        'File too large'
        >>> disk_fault(ValueError("no disk in here"))
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _DISK:
            name = f"{str(error.filename)!r}: " if error.filename else ""
            return f"{name}{error.strerror}"
        # safetensors, written in Rust, has no errno but the words of one.
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found and int(found[1]) in _DISK:
            return os.strerror(int(found[1]))
        if any(word in str(error) for word in _WORDS):
            return "a file could not be written completely"
        error = error.__cause__ or error.__context__
    return None
