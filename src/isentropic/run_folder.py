"""The run folder: the only thing that passes between commands. What is written there,
and how it is read back."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows; runs there are not kept apart
    fcntl = None  # type: ignore[assignment]

from isentropic.errors import InputError
from isentropic.files import (
    append_jsonl,
    check_room,
    disk_fault,
    load_object,
    read_json,
    read_jsonl,
    sync,
    write_json,
    write_jsonl,
)
from isentropic.report.curves import finite
from isentropic.settings import TrainSettings

CONFIG = "config.json"
BEFORE, AFTER, COMPARISON = "gap_before.json", "gap_after.json", "comparison.json"
BEHAVIOUR = "behaviour.json"
METRICS, RESPONSES = "metrics.jsonl", "responses.jsonl"
CURVES, REPORT_HTML, REPORT_MD = "curves.png", "report.html", "report.md"
CHECKPOINTS, FINAL, CARD = "checkpoints", "final", "final/README.md"
RESULT = "result.json"
"""Written last: a run that has one is finished, or was interrupted and says so in it."""
LOCK = ".lock"
STAGING = ".isentropic-"
"""What the name of a folder begins with that is about to become a run folder, or that is being deleted."""

CONFIG_SCHEMA = "isentropic.config/1"

FREE_ON_RESUME = frozenset(
    "output_dir run_name model_path train_data behaviour use_test_data preset resume overwrite lang "
    "report_to log_steps save_steps trust_remote_code max_steps gate".split()
)
"""Settings that a resumed run may change. Model and data are compared by their hashes, not by their names."""


# --- Making the folder --------------------------------------------------------------------------------------


def check_folder(folder: Path, settings: TrainSettings) -> None:
    """A run folder is made, resumed, or deleted on request; never overwritten unless asked to."""
    if settings.resume:
        check_resumable(folder, settings)
    elif settings.overwrite:
        if not is_free(folder):
            check_ours(folder, settings)
    elif not is_free(folder):
        if not is_run(folder):
            raise InputError(
                f"{str(folder)!r} exists and is not a run folder (no {CONFIG} of isentropic in it); a run "
                "would mix its files with those; give another --run_name"
            )
        raise InputError(
            f"run folder {str(folder)!r} exists; its results would be lost; give another --run_name, "
            "--resume to continue it, or --overwrite to delete it"
        )


def check_resumable(folder: Path, settings: TrainSettings) -> None:
    if not folder.is_dir() or is_free(folder):
        raise InputError(
            f"run folder {str(folder)!r} does not exist or is empty; there is nothing to resume; check "
            "--run_name and --output_dir, or leave --resume out"
        )
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{str(folder)!r} has no {CONFIG}; it is not a run that can be resumed; give another --run_name"
        )
    config = read_json(folder / CONFIG)
    if (folder / RESULT).is_file():
        read_json(folder / RESULT)  # refuses a damaged one: the run may be finished
    # The names of the groups are known when the prompts have been read.
    check_same_settings(folder, config, {**asdict(settings), "groups": None})


def check_ours(folder: Path, settings: TrainSettings) -> None:
    """What --overwrite may delete: a run folder of isentropic from which the new run reads nothing."""
    name = repr(str(folder))
    if folder.is_symlink():
        raise InputError(
            f"--overwrite would delete {name}, which is a link to {os.readlink(folder)!r}; only a folder "
            "itself is deleted; remove the link, or give another --run_name"
        )
    if not is_run(folder):
        raise InputError(
            f"--overwrite would delete {name}, which is not a run folder (no {CONFIG} of isentropic in it); "
            "give another --run_name"
        )
    for flag in ("model_path", "train_data", "hold_contexts", "text_file", "behaviour"):
        given = os.path.expanduser(getattr(settings, flag) or "")
        if os.path.exists(given) and Path(given).resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"--overwrite would delete {name}, and --{flag} {given!r} lies in it; the new run needs it; "
                "give another --run_name"
            )


def is_free(folder: Path) -> bool:
    """Whether a new run can take this name: nothing is there, or folders without a single file."""
    if not os.path.lexists(folder):
        return True
    return is_plain_folder(folder) and all(is_plain_folder(path) for path in folder.rglob("*"))


def is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end; what is damaged has not."""
    try:
        return load_object(folder / RESULT).get("stopped", "interrupted") != "interrupted"
    except (OSError, ValueError):
        return False


def is_run(folder: Path) -> bool:
    try:
        return load_object(folder / CONFIG).get("schema") == CONFIG_SCHEMA
    except (OSError, ValueError):
        return False


def check_same_settings(folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """A run is resumed with the settings it began with. What is None in ``settings`` is not known yet."""
    defaults = {f.name: f.default for f in fields(TrainSettings)}
    differ = []
    for name, default in defaults.items():
        then, now = config.get(name, default), settings.get(name)
        open_yet = now is None and name in ("chat", "groups")
        if name not in FREE_ON_RESUME and not open_yet and then != now:
            differ.append(f"--{name} (then {then}, now {now})")
    if differ:
        raise InputError(
            f"run {str(folder)!r} was started with other settings: {', '.join(differ)}; the rest of it would "
            "be another run; give the old values, or another --run_name"
        )


def check_same_run(folder: Path, now: Mapping[str, Any]) -> None:
    """A run is resumed with the settings, the model and the prompts it began with.

    Args:
        folder: the run folder.
        now: what `config.json` would hold if the run began now.
    """
    config = read_json(folder / CONFIG)
    check_same_settings(folder, config, now)
    for what, key, flag in (
        ("another model", "model_sha256", "--model_path"),
        ("other prompts", "data_sha256", "--train_data"),
        ("other contexts", "contexts_sha256", "--hold_contexts"),
    ):
        if config.get(key) != now.get(key):
            raise InputError(
                f"run {str(folder)!r} was started with {what} ({key} {str(config.get(key))[:8]}, now "
                f"{str(now.get(key))[:8]}); the rest would be a different run; give the same {flag}, or "
                "another --run_name"
            )


def note_resume(folder: Path, step: int, now: Mapping[str, Any]) -> None:
    """Add to `config.json` what a resumed run changes, and from which step on.
    What was written there stays."""
    config = read_json(folder / CONFIG)
    before: dict[str, Any] = {**config}
    for earlier in config.get("resumed", []):
        before |= earlier
    changed = {name: now[name] for name in ("max_steps", "lang", "report_to", "log_steps", "save_steps")}
    changed = {name: value for name, value in changed.items() if before.get(name) != value}
    if changed:
        resumed = [*config.get("resumed", []), {"after_step": step, **changed}]
        write_json(folder / CONFIG, {**config, "resumed": resumed})


@contextlib.contextmanager
def without_trace(folder: Path) -> Iterator[None]:
    """If the block fails, remove the empty folders that it made where the run folder will be."""
    there = os.path.lexists(folder)
    try:
        yield
    except BaseException:
        if not there and is_free(folder):
            remove_empty(folder)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; the system gives it up when the process ends, however it ends.

    Raises:
        InputError: another process holds it, or the folder is gone.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        raise busy(folder) from None
    try:
        take(handle, folder)
        yield
    finally:
        os.close(handle)


def take(handle: int, folder: Path) -> None:
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy(folder) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
    # Between opening and locking another process may have put a new folder in the place of this one.
    try:
        same = os.path.samestat(os.fstat(handle), os.stat(folder / LOCK))
    except FileNotFoundError:
        same = False
    if not same:
        raise busy(folder)


def busy(folder: Path) -> InputError:
    return InputError(
        f"run folder {str(folder)!r} is in use by another process; two runs would mix their files; wait for "
        "it, stop it, or give another --run_name"
    )


@contextlib.contextmanager
def new_folder(
    folder: Path, config: Mapping[str, Any], room: int, *, overwrite: bool = False
) -> Iterator[None]:
    """Make the run folder with its `config.json` in one move, and hold its lock.

    Args:
        folder: the run folder; what is there now has passed :func:`check_folder`.
        config: what `config.json` is to hold.
        room: bytes that the run will take.
        overwrite: an old run there is deleted, once the new one is ready to take its place.
    """
    parent = folder.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_left_behind(parent)
        check_room(parent, room)
        staging = parent / f"{STAGING}{os.getpid()}-{secrets.token_hex(4)}"
        staging.mkdir()
    except OSError as error:
        raise InputError(
            f"run folder {str(folder)!r} cannot be made ({disk_fault(error) or error.strerror}); a run needs "
            "a place to write; give another --output_dir"
        ) from error
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(staging))
            write_json(staging / CONFIG, config)
            move_into_place(staging, folder, overwrite)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        yield


def move_into_place(staging: Path, folder: Path, overwrite: bool) -> None:
    old = staging.with_name(f"{staging.name}.old")
    try:
        if is_free(folder):
            remove_empty(folder)
        elif overwrite:
            with locked(folder):
                os.rename(folder, old)
        os.rename(staging, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise busy(folder) from error  # another run has just begun there
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing but folders."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir()
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def remove_left_behind(parent: Path) -> None:
    """Remove what runs that were killed while they began have left in the folder of run folders."""
    for path in parent.glob(f"{STAGING}*"):
        try:
            young = time.time() - path.stat().st_mtime < 60 and path.suffix != ".old"
            if is_plain_folder(path) and not young:
                with locked(path):
                    shutil.rmtree(path, ignore_errors=True)
        except (OSError, InputError):
            continue  # in use, or another process was quicker


def clean(folder: Path) -> None:
    """Remove the temporaries of a killed process from a run folder whose lock is held."""
    for path in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        if is_plain_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


# --- Metrics ------------------------------------------------------------------------------------------------


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl` up to the first that a crash cut short."""
    rows: list[dict[str, Any]] = []
    if (folder / METRICS).is_file():
        for _, row in read_jsonl(folder / METRICS):
            if isinstance(row, ValueError) or "step" not in row:
                break
            rows.append(row)
    return rows


def write_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write `metrics.jsonl` from the start, as a run that resumes does."""
    write_jsonl(folder / METRICS, rows)


def append_metrics(folder: Path, row: dict[str, Any]) -> None:
    append_jsonl(folder / METRICS, row)


# --- Reading it back ----------------------------------------------------------------------------------------


def read_run(folder: str | Path, result: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read the files of a run folder into one plain dict.

    Args:
        folder: `runs/<run_name>`; `config.json` and `gap_before.json` must be there, the rest may be missing,
            as after a run that was stopped early.
        result: what `result.json` will hold, where it is not written yet.

    Returns:
        `schema` ("isentropic.run/1"), `name`, `config`, `metrics` (rows), `before`, `after`, `comparison`,
        `behaviour`, `result` (None where missing), `examples` (three pairs with their responses), `curves`
        (is there a `curves.png`) and `notes` on files that are missing or damaged. Gaps and entropies in
        nats.

    Raises:
        InputError: no such folder, or a file that must be there is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; a report is made from what a run left behind, give runs/<run_name>"
        )
    notes: list[dict[str, Any]] = []
    config = _required(folder / CONFIG)
    before = _required(folder / BEFORE)
    if finite(before.get("gap")) is None:
        raise InputError(
            f"{folder / BEFORE} has no gap; the report begins with it, run the training again or "
            "restore the file"
        )
    if result is None:
        result = _optional(folder / RESULT, notes)
    unchanged = (result or {}).get("stopped") == "already_within"
    after = _optional(folder / AFTER, notes, silent=unchanged)
    if after is not None and finite(after.get("gap")) is None:
        notes.append({"key": "damaged", "file": AFTER, "why": "no gap"})
        after = None
    comparison = _optional(folder / COMPARISON, notes, silent=after is None)
    behaviour = _optional(folder / BEHAVIOUR, notes, silent=not config.get("behaviour") or after is None)
    return {
        "schema": "isentropic.run/1",
        "name": folder.resolve().name,
        "config": config,
        "metrics": list(_rows(folder / METRICS, notes, silent=unchanged)),
        "before": before,
        "after": after,
        "comparison": comparison,
        "behaviour": behaviour,
        "result": result,
        "examples": _examples(_rows(folder / RESPONSES, notes), before, after),
        "curves": (folder / CURVES).is_file(),
        "notes": notes,
    }


def _required(path: Path) -> dict[str, Any]:
    try:
        return load_object(path)
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; a report needs it, give the folder of a run that got past its first "
            "measurement"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); a report needs it, restore the file or run again"
        ) from None


def _optional(path: Path, notes: list[dict[str, Any]], silent: bool = False) -> dict[str, Any] | None:
    try:
        return load_object(path)
    except FileNotFoundError:
        if not silent:
            notes.append({"key": "missing", "file": path.name})
    except (ValueError, OSError) as error:
        notes.append({"key": "damaged", "file": path.name, "why": str(error)})
    return None


def _rows(path: Path, notes: list[dict[str, Any]], silent: bool = False) -> Iterator[dict[str, Any]]:
    """Read JSON lines one by one; a line that cannot be read is left out and, at the end, noted,
    as a run killed in mid-write leaves one."""
    damaged: list[int] = []
    try:
        for number, row in read_jsonl(path):
            if isinstance(row, ValueError):
                damaged.append(number)
            else:
                yield row
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        if not (silent and missing):
            why = error.strerror or str(error)
            notes.append({"key": "missing" if missing else "damaged", "file": path.name, "why": why})
    if damaged:
        note = {"key": "line", "file": path.name, "line": damaged[0]}
        notes.append(note | ({"key": "lines", "more": len(damaged) - 1} if len(damaged) > 1 else {}))


def _examples(
    responses: Iterable[dict[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """The pairs with the lowest, the middle and the highest gap before training, with their responses; the
    first three pairs where no gaps are known. No others are held in memory."""
    split = before.get("split") or "test"
    gaps = [_pair_gaps(summary) for summary in (before, after or {})]
    ranked = sorted(gaps[0], key=lambda pair: (gaps[0][pair], pair))
    chosen = {f"{i}": pair for i, pair in enumerate(ranked)}
    if len(ranked) >= 3:
        chosen = {"lowest": ranked[0], "middle": ranked[len(ranked) // 2], "highest": ranked[-1]}
    pairs: dict[str, list[dict[str, Any]]] = {pair: [] for pair in chosen.values()}
    for row in responses:
        pair = str(row.get("pair_id"))
        shown = pair in pairs or (not ranked and len(pairs) < 3)
        if shown and row.get("pair_id") is not None and row.get("split", split) == split:
            pairs.setdefault(pair, []).append(row)
    examples = []
    for place, pair in (chosen or dict(zip("012", pairs, strict=False))).items():
        if not pairs[pair]:
            continue
        prompts: dict[str, str] = {}
        scored: dict[tuple[str, str], dict[str, tuple[Any, Any]]] = {}
        for row in pairs[pair]:
            group = str(row.get("group"))
            prompts.setdefault(group, str(row.get("prompt", "")))
            answer = (str(row.get("source", group)), str(row.get("response", "")))
            scored.setdefault(answer, {})[group] = (row.get("entropy"), row.get("entropy_after"))
        order = [g for g in before.get("groups") or [] if g in prompts]
        order += [g for g in prompts if g not in order]
        examples.append(
            {
                "pair_id": pair,
                "place": None if place.isdigit() else place,
                "topic": pairs[pair][0].get("topic"),
                "gap_before": gaps[0].get(pair),
                "gap_after": gaps[1].get(pair),
                "prompts": [{"group": group, "prompt": prompts[group]} for group in order],
                "responses": [
                    {"source": source, "response": text, "entropy": entropy}
                    for (source, text), entropy in list(scored.items())[:4]
                ],
            }
        )
    return examples


def _pair_gaps(summary: Mapping[str, Any]) -> dict[str, float]:
    gaps = {str(pair.get("pair_id")): finite(pair.get("gap")) for pair in summary.get("pair_gaps") or []}
    return {pair: gap for pair, gap in gaps.items() if gap is not None}
