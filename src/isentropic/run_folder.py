"""The run folder: the only thing that passes between commands. What is written there, and how it is read back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isentropic.errors import InputError
from isentropic.files import check_room, read_json
from isentropic.prompts.prompt_set import PromptSet
from isentropic.report.curves import finite
from isentropic.settings import TrainSettings

if TYPE_CHECKING:
    from isentropic.models.model import LoadedModel


def read_run(folder: str | Path) -> dict[str, Any]:
    """Read the files of a run folder into one plain dict.

    Args:
        folder: `runs/<run_name>`; `config.json` and `gap_before.json` must be there, the rest may be missing, as
            after a run that was stopped early.

    Returns:
        `schema` ("isentropic.run/1"), `name`, `config`, `metrics` (rows), `before`, `after`, `comparison`, `result`
        (None where missing), `examples` (three pairs with their responses), `curves` (is there a `curves.png`) and
        `notes` on files that are missing or damaged. Gaps and entropies in nats.

    Raises:
        InputError: no such folder, or a file that must be there is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; a report is made from what a run left behind, give runs/<run_name>"
        )
    notes: list[dict[str, Any]] = []
    config = _required(folder / "config.json")
    before = _required(folder / "gap_before.json")
    if finite(before.get("gap")) is None:
        raise InputError(
            f"{folder / 'gap_before.json'} holds no gap; the report begins with it, run the training again or "
            "restore the file"
        )
    result = _optional(folder / "result.json", notes)
    unchanged = (result or {}).get("stopped") == "already_within"
    after = _optional(folder / "gap_after.json", notes, silent=unchanged)
    if after is not None and finite(after.get("gap")) is None:
        notes.append({"key": "damaged", "file": "gap_after.json", "why": "no gap"})
        after = None
    comparison = _optional(folder / "comparison.json", notes, silent=after is None)
    metrics = _rows(folder / "metrics.jsonl", notes, silent=unchanged)
    responses = _rows(folder / "responses.jsonl", notes)
    return {
        "schema": "isentropic.run/1",
        "name": folder.resolve().name,
        "config": config,
        "metrics": metrics,
        "before": before,
        "after": after,
        "comparison": comparison,
        "result": result,
        "examples": _examples(responses, before, after),
        "curves": (folder / "curves.png").is_file(),
        "notes": notes,
    }


def _load(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise ValueError with a short reason that names the line."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    if not isinstance(value, dict):
        raise ValueError("line 1: not a JSON object")
    return value


def _required(path: Path) -> dict[str, Any]:
    try:
        return _load(path)
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; a report needs it, give the folder of a run that got past its first measurement"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); a report needs it, restore the file or run again"
        ) from None


def _optional(path: Path, notes: list[dict[str, Any]], silent: bool = False) -> dict[str, Any] | None:
    try:
        return _load(path)
    except FileNotFoundError:
        if not silent:
            notes.append({"key": "missing", "file": path.name})
    except (ValueError, OSError) as error:
        notes.append({"key": "damaged", "file": path.name, "why": str(error)})
    return None


def _rows(path: Path, notes: list[dict[str, Any]], silent: bool = False) -> list[dict[str, Any]]:
    """Read JSON lines; a line that cannot be read is left out and noted, as a run killed in mid-write leaves one."""
    rows: list[dict[str, Any]] = []
    damaged = 0
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        if not (silent and isinstance(error, FileNotFoundError)):
            key = "missing" if isinstance(error, FileNotFoundError) else "damaged"
            notes.append({"key": key, "file": path.name, "why": str(error)})
        return rows
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged += 1
            if damaged == 1:
                notes.append({"key": "line", "file": path.name, "line": number})
    if damaged > 1:
        notes[-1] |= {"key": "lines", "more": damaged - 1}
    return rows


def _examples(
    responses: list[dict[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Choose the pairs with the lowest, the middle and the highest gap before training, with their responses."""
    pairs: dict[str, list[dict[str, Any]]] = {}
    split = before.get("split") or "test"
    for row in responses:
        if row.get("pair_id") is not None and row.get("split", split) == split:
            pairs.setdefault(str(row["pair_id"]), []).append(row)
    gaps = [_pair_gaps(summary) for summary in (before, after or {})]
    ranked = sorted((pair for pair in pairs if pair in gaps[0]), key=lambda pair: (gaps[0][pair], pair))
    if len(ranked) >= 3:
        chosen = dict(
            zip(
                ("lowest", "middle", "highest"),
                (ranked[0], ranked[len(ranked) // 2], ranked[-1]),
                strict=True,
            )
        )
    else:
        chosen = {f"{i}": pair for i, pair in enumerate(ranked or list(pairs)[:3])}
    examples = []
    for place, pair in chosen.items():
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


FINISHED = "result.json"


# --- Making the folder ----------------------------------------------------------------------------------------------


def check_folder(folder: Path, settings: TrainSettings) -> None:
    """A run folder is made, gone on with, or deleted on request; never overwritten in silence."""
    if settings.resume:
        if not (folder / "config.json").is_file():
            raise InputError(
                f"run folder {str(folder)!r} does not exist; there is nothing to resume; check --run_name and "
                f"--output_dir, or leave --resume out"
            )
        if (folder / FINISHED).is_file():
            stopped = read_json(folder / FINISHED).get("stopped")
            if stopped != "interrupted":
                raise InputError(
                    f"run {str(folder)!r} is finished ({stopped}); there is nothing to resume; give another --run_name"
                )
    elif folder.exists() and not settings.overwrite:
        raise InputError(
            f"run folder {str(folder)!r} exists; its results would be lost; give another --run_name, --resume to go on "
            f"with it, or --overwrite to delete it"
        )


def check_same_run(folder: Path, prompts: PromptSet, loaded: LoadedModel) -> None:
    """A run goes on with the model and the prompts it began with."""
    config = read_json(folder / "config.json")
    for what, key, now, flag in (
        ("another model", "model_sha256", loaded.sha256, "--model_path"),
        ("other prompts", "data_sha256", prompts.sha256, "--train_data"),
    ):
        if config.get(key) != now:
            raise InputError(
                f"run {str(folder)!r} was started with {what} ({key} {str(config.get(key))[:8]}, now {now[:8]}); the "
                f"rest of it would be another run; give the same {flag}, or another --run_name"
            )


def prepare_folder(folder: Path, settings: TrainSettings, parameters: int) -> None:
    parent = Path(settings.output_dir)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # The best weights and the final ones; or the best ones and, while the new one is being written, two checkpoints
        # of weights and the optimizer's two moments.
        check_room(parent, parameters * (28 if settings.save_steps else 8))
        if settings.overwrite and folder.exists():
            if not (folder / "config.json").is_file():
                raise InputError(
                    f"--overwrite would delete {str(folder)!r}, which has no config.json and so is no run folder; "
                    f"give another --run_name"
                )
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"run folder {str(folder)!r} cannot be made ({error.strerror}); a run needs a place to write; give another "
            f"--output_dir"
        ) from error


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that resumes, if one was saved."""
    checkpoints = [
        path for path in folder.glob("checkpoints/checkpoint-*") if (path / "trainer_state.json").is_file()
    ]
    return str(max(checkpoints, key=lambda path: int(path.name.split("-")[1]))) if checkpoints else None


def limited(prompts: PromptSet, most: int | None) -> PromptSet:
    """The first ``most`` pairs (or prompts of each group)."""
    if most is None:
        return prompts
    if prompts.paired:
        kept = {p.pair_id for twins in prompts.tuples()[:most] for p in twins}
        return dataclasses.replace(prompts, prompts=tuple(p for p in prompts.prompts if p.pair_id in kept))
    seen: dict[str, int] = {}
    chosen = []
    for prompt in prompts.prompts:
        seen[prompt.group] = seen.get(prompt.group, 0) + 1
        if seen[prompt.group] <= most:
            chosen.append(prompt)
    return dataclasses.replace(prompts, prompts=tuple(chosen))
