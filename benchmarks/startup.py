"""How long a user waits: `isentropic --help`, and `isentropic measure` until its first progress line.

    python benchmarks/startup.py [--repeats 5] [--model NAME]

The embedded model is dequantised into the cache before the clock starts.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time

from common import Row, environment, interleaved, model_name, number, parser, publish
from common import table as markdown

GOALS = {"--help": 0.3, "measure": 8.0}


def first_line(words: list[str], threads: int) -> Row:
    """Seconds until a command's first progress line on its standard output (of the help: its first line), and that line."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "isentropic", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(threads),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        while words != ["--help"] and line and not line.endswith("..."):
            line = process.stdout.readline().strip()
        seconds = time.perf_counter() - start
        if words != ["--help"]:
            process.send_signal(signal.SIGKILL)
        elif process.wait():
            sys.exit("isentropic --help failed")
        else:
            seconds = time.perf_counter() - start
    if not line:
        sys.exit(f"isentropic {' '.join(words)} said nothing")
    return {"seconds": seconds, "line": line}


def main(arguments: list[str] | None = None) -> None:
    args = parser(__doc__, "startup", repeats=5).parse_args(arguments)
    if args.quick:
        args.repeats = 1
    else:
        from isentropic.models.gguf import embedded_folder
        from isentropic.models.model import EMBEDDED

        if args.model == EMBEDDED:
            embedded_folder()
    commands = {"--help": ["--help"], "measure": ["measure", model_name(args), "--pairs", "20"]}
    load = os.getloadavg()[0]
    runs = interleaved(commands, args.repeats, lambda side: first_line(commands[side], args.threads))
    rows, middle = [], {}
    for side, found in runs.items():
        middle[side] = statistics.median(run["seconds"] for run in found)
        until = "the end" if side == "--help" else f"the first line ({found[0]['line']})"
        rows.append(
            [
                number(middle[side] / GOALS[side]),
                f"isentropic {side}",
                number(middle[side]),
                until,
                GOALS[side],
            ]
        )
    text = markdown(["of the goal", "command", "seconds", "until", "goal, seconds"], rows)
    publish(
        args, "startup", text, {"medians": middle, "goals": GOALS, "load_average_before": load, "runs": runs}
    )


if __name__ == "__main__":
    main()
