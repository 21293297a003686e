"""``isentropic prompts``: show what a file gives."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from isentropic.commands.screen import Screen
from isentropic.prompts.load import load_prompts
from isentropic.prompts.preview import prompts_preview, write_prompts
from isentropic.settings import TrainSettings, reading_of


def run_prompts(given: dict[str, Any]) -> None:
    reading = TrainSettings(
        **{f.name: given[f.name] for f in fields(TrainSettings) if given.get(f.name) is not None}
    )
    swap: Any = given["swap"]
    if swap and given["model_path"]:
        from isentropic.models.load import load_model
        from isentropic.prompts.swap.swap import swapper

        swap = swapper(lambda: load_model(given["model_path"]))
    prompts = load_prompts(given["file"], swap=swap, **reading_of(reading))
    screen = Screen()
    screen.say(prompts.ratio_line())
    screen.say(json.dumps(prompts_preview(prompts), ensure_ascii=False, indent=1))
    if given["out"]:
        read = "" if set(prompts.groups) == {"male", "female"} else "; read it with --group_column group"
        screen.say(f"written: {write_prompts(prompts, given['out'], overwrite=given['overwrite'])}{read}")
