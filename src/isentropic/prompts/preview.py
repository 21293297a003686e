"""Prompts shown and written to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.prompts.prompt_set import SPLITS, PromptSet, _marks


def prompts_preview(prompt_set: PromptSet, examples: int = 3) -> dict[str, Any]:
    """What would be used, in plain values: counts by split and group, topics, notes and the first examples."""
    topics = {p.topic for p in prompt_set.prompts if p.topic is not None}
    shown = [p for g in prompt_set.groups for p in [q for q in prompt_set.prompts if q.group == g][:examples]]
    return {
        "name": prompt_set.name,
        "groups": list(prompt_set.groups),
        "paired": prompt_set.paired,
        "counts": prompt_set.counts(),
        "splits": {name: prompt_set.split(name).counts() for name in SPLITS},
        "topics": len(topics),
        "ratio": prompt_set.ratio_line(),
        "notes": list(prompt_set.notes),
        "examples": [{"group": p.group, "pair_id": p.pair_id, "prompt": p.text} for p in shown],
        "sha256": prompt_set.sha256,
    }


def write_prompts(prompt_set: PromptSet, path: str | Path, overwrite: bool = False) -> Path:
    """Write prompts as JSONL that `load_prompts` reads back: one pair of male and female a line, or one prompt a line.

    Other groups than these two must be named when they are read: `load_prompts(path, groups=...)`.

    Raises:
        InputError: If the file is there already (unless `overwrite`), or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists; writing would lose what is in it; give another name or overwrite it"
        )
    rows: list[dict[str, Any]]
    if prompt_set.paired and set(prompt_set.groups) == {"male", "female"}:
        rows = [{p.group: p.text for p in twins} | _marks(twins[0]) for twins in prompt_set.tuples()]
    else:
        rows = [{"prompt": p.text, "group": p.group} | _marks(p) for p in prompt_set.prompts]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; check the folder and its space"
        ) from error
    return path
