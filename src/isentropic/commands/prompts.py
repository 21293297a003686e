"""``isentropic prompts``: show what a file gives."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from isentropic.commands.outputs import check_outputs
from isentropic.commands.screen import Screen
from isentropic.files import json_line, write_text
from isentropic.prompts.load import load_prompts
from isentropic.prompts.preview import flags_to_read, prompt_rows, prompts_preview
from isentropic.settings import TrainSettings, reading_of


def run_prompts(**given: Any) -> None:
    reading = TrainSettings(
        **{f.name: given[f.name] for f in fields(TrainSettings) if given.get(f.name) is not None}
    )
    check_outputs({"--out": given["out"]}, {"prompts": given["file"]}, overwrite=given["overwrite"])
    swap: Any = given["swap"]
    if swap and given["model_path"]:
        from isentropic.models.load import load_model
        from isentropic.prompts.swap.swap import swapper

        swap = swapper(lambda: load_model(given["model_path"]))
    prompts = load_prompts(given["file"], swap=swap, **reading_of(reading))
    lines = [prompts.ratio_line(), json.dumps(prompts_preview(prompts), ensure_ascii=False, indent=1)]
    if given["out"]:
        write_text(Path(given["out"]), "".join(json_line(row) for row in prompt_rows(prompts)))
        flags = flags_to_read(prompts)
        lines.append(f"written: {given['out']}" + (f"; read it with {flags}" if flags else ""))
    screen = Screen()
    for line in lines:
        screen.say(line)
