"""Can a run be lost? Trainings that are killed at random moments, or at one operation on a file, are run to their end.

    python benchmarks/torture.py [--kills 200] [--crash_points 200] [--seed 0] [--minutes 20] [--way steps]

A kill is SIGKILL at a moment drawn evenly over the time that a whole run takes. A crash point is one operation on a file
(open, rename, delete, make or remove a folder, a write of torch or safetensors): the process dies before it, or leaves the
file empty, or half written. Each run is then started again as a user would, with --resume, until it is finished; a third of
these starts are killed too. In the end weights and files must be those of a run that was never cut. A tiny random model; a
small text in place of the drawn curves; each start is a forked child of one process that has imported everything.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # a child forked from a process with threads may hang
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from common import Row, parser, publish, table, tiny_model  # noqa: E402

COMMON = (
    "--output_dir runs --run_name run --max_steps 6 --eval_steps 2 --effective_batch 8 --micro_batch_size 4 --max_new_tokens 3 "
    "--max_pairs 16 --test_pairs 6 --validation_pairs 6 --learning_rate 1e-3 --max_kl 10 --bf16 off --force"
).split()
WAYS = {
    "steps": "--target_gap 1e-9 --save_steps 2",
    "target": "--target_gap 5 --save_steps 1",
    "no checkpoints": "--target_gap 1e-9 --save_steps 0",
    "refreshed": "--target_gap 1e-9 --save_steps 2 --refresh_responses 2",
    "lora": "--target_gap 1e-9 --save_steps 2 --lora_r 2",
}
MOST_STARTS = 12
DEAD = -signal.SIGKILL


# --- One start ------------------------------------------------------------------------------------------------------


def start(
    words: list[str], place: Path, prepare: Callable[[], None], kill_after: float | None = None
) -> tuple[int, str, float]:
    """``isentropic train`` in a forked child whose working directory is ``place``: exit code, output, seconds."""
    log = b""
    reads, writes = os.pipe()  # not a file: a limit of the size of files must not cost the output
    os.set_blocking(reads, False)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(place)
            os.dup2(writes, 1), os.dup2(writes, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
            from isentropic.cli import main

            prepare()
            code = main(["train", *words])
            sys.stdout.flush()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writes)
    status = None
    while status is None:
        with suppress(BlockingIOError):
            log += os.read(reads, 1 << 20)
        done, found = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(found)
        elif kill_after is not None and time.monotonic() - begun > kill_after:
            os.kill(child, signal.SIGKILL)
            kill_after = None
        else:
            time.sleep(0.002)
    seconds = time.monotonic() - begun
    while rest := os.read(reads, 1 << 20):
        log += rest
    os.close(reads)
    return status, log.decode(errors="replace"), seconds


class CrashPoint:
    """Counts the operations on files of the run; at number ``at`` the process dies in the way ``how``."""

    def __init__(self, place: Path, at: int, how: str, report: Path | None = None) -> None:
        self.place, self.at, self.how, self.report = str(place), at, how, report
        self.count, self.half, self.busy = 0, None, False

    def install(self) -> None:
        import safetensors.torch
        import torch

        from isentropic.training import callbacks

        callbacks.draw_curves = small_picture
        sys.addaudithook(self.heard)
        write, save = safetensors.torch.serialize_file, torch.save

        def serialize_file(tensors: Any, file: Any, *more: Any, **options: Any) -> Any:
            return self.native("safetensors", file, lambda: write(tensors, file, *more, **options))

        def torch_save(content: Any, file: Any, *more: Any, **options: Any) -> Any:
            return self.native("torch.save", file, lambda: save(content, file, *more, **options))

        safetensors.torch.serialize_file, torch.save = serialize_file, torch_save

    def heard(self, event: str, args: tuple) -> None:
        """What Python does to files, before it does it."""
        if self.busy:
            return
        if event == "open":
            writes = isinstance(args[0], (str, bytes)) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or args[2] & os.O_DIRECTORY:
                return
        elif event not in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        by_handle = (
            event in ("os.remove", "os.rmdir") and args[-1] != -1
        )  # within rmtree, by a folder's handle
        if path.startswith(self.place + os.sep) or by_handle:
            self.operation(event, path, args[2] & os.O_APPEND if event == "open" else 0)

    def operation(self, kind: str, path: str, appends: int = 0) -> None:
        self.busy = True
        if self.half:
            self.cut_and_die()
        if self.report:
            with self.report.open("a") as file:
                file.write(f"{kind} {os.path.relpath(path, self.place)}\n")
        self.count += 1
        if self.count == self.at:
            if self.how == "empty" and kind == "open" and not appends:
                open(path, "wb").close()
            if self.how == "half" and kind == "open":
                self.half = path, os.path.getsize(path) if appends else 0
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        self.busy = False

    def native(self, kind: str, path: Any, write: Callable[[], Any]) -> Any:
        """A write of a library's own, which Python does not hear of."""
        if not isinstance(path, (str, Path)):
            return write()
        dies = self.count + 1 == self.at
        if dies and self.how == "empty":
            open(path, "wb").close()
        if dies and self.how == "half":
            self.busy = True
            done = write()
            self.half = os.path.abspath(path), 0
            self.busy = False
            self.count += 1
            return done
        self.operation(kind, os.path.abspath(path))
        return write()

    def cut_and_die(self) -> None:
        """Half of what was written before this operation is on the disk; nothing after it has been done."""
        assert self.half
        path, kept = self.half
        if os.path.exists(path):
            os.truncate(path, kept + (os.path.getsize(path) - kept) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def small_picture(rows: list[Row], path: Path, **more: Any) -> None:
    """In place of the curves, whose drawing takes longer than all the rest: written in the same way."""
    from isentropic.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]))


# --- One case -------------------------------------------------------------------------------------------------------


def content(run: Path) -> Row:
    """What is compared of a finished run: its files, what is in them, and no seconds."""
    files: Row = {str(p.relative_to(run)): None for p in sorted(run.rglob("*")) if p.is_file()}
    for name in files:
        if name.startswith("checkpoints"):
            continue
        data = (run / name).read_bytes()
        if name == "metrics.jsonl":
            rows = [json.loads(line) for line in data.splitlines()]
            data = json.dumps([{k: v for k, v in row.items() if k != "seconds"} for row in rows]).encode()
        elif name == "result.json":
            data = json.dumps({k: v for k, v in json.loads(data).items() if k != "seconds"}).encode()
        elif name in ("report.html", "report.md"):
            data = re.sub(rb"[\d.]+ (s|min)\b", b"", data)
        files[name] = hashlib.sha256(data).hexdigest()
    return files


def one_case(way: str, model: str, place: Path, first: Row, chance: random.Random, whole: Row) -> Row:
    """Start a run with one fault, go on until it is finished, and compare."""
    words = [*COMMON, *WAYS[way].split(), "--model_path", model]
    run, said = place / "runs" / "run", []
    for number in range(MOST_STARTS):
        fault = first if number == 0 else {}
        if number and number < MOST_STARTS - 3 and chance.random() < 1 / 3:
            fault = {"kill_after": chance.uniform(0, whole["seconds"])}
        point = CrashPoint(place / "runs", fault.get("at", 0), fault.get("how", ""))
        # A run that was killed before it began cannot be resumed; the line that says so says what to do.
        resume = run.exists() and not (said and said[-1]["exit"] == 2)
        given = [*words, *["--resume"] * resume]
        code, log, _ = start(given, place, point.install, fault.get("kill_after"))
        said.append({"fault": fault, "resume": resume, "exit": code})
        if "Traceback (most recent call last)" in log:
            return {"outcome": "traceback", "starts": said, "log": log[-3000:]}
        if code == 0 or (code == 2 and "is finished" in log):
            break
        if code != DEAD and not (resume and "leave --resume out" in log):
            return {"outcome": "lost", "starts": said, "log": log[-3000:]}
    else:
        return {"outcome": "lost", "starts": said, "log": "not finished"}
    now = content(run)
    names = sorted(set(now) | set(whole["content"]))
    other = [name for name in names if now.get(name, "") != whole["content"].get(name, "")]
    left = sorted(
        p.name for p in (place / "runs").iterdir() if p.name != "run" and ".isentropic-" not in p.name
    )
    return {
        "outcome": f"other {', '.join(other + left)}" if other or left else "same",
        "starts": said,
        "log": "",
    }


def whole_run(way: str, model: str, place: Path) -> Row:
    """A run that is never cut: what it leaves, how long it takes, and its operations on files."""
    words = [*COMMON, *WAYS[way].split(), "--model_path", model]
    place.mkdir(parents=True)
    _, log, _ = start(words, place, lambda: None)  # fills the cache of responses
    shutil.rmtree(place / "runs", ignore_errors=True)
    operations = place / "operations.txt"
    code, log, seconds = start(words, place, CrashPoint(place / "runs", 0, "", operations).install)
    if code:
        sys.exit(f"the run that is not cut ends with exit code {code}:\n{log}")
    return {
        "content": content(place / "runs" / "run"),
        "seconds": seconds,
        "operations": operations.read_text(encoding="utf-8").splitlines(),
    }


# --- The campaign ---------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__ or "", "torture")
    flags.add_argument("--kills", type=int, default=200)
    flags.add_argument("--crash_points", type=int, default=200)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no further run after so long"
    )
    flags.add_argument(
        "--way", choices=tuple(WAYS), action="append", help="run these alone; may be given again"
    )
    args = flags.parse_args(arguments)
    args.model = "a tiny random Llama"
    warm_up()
    with tempfile.TemporaryDirectory(prefix="isentropic-torture-") as folder:
        os.environ["ISENTROPIC_CACHE"] = f"{folder}/cache"
        cases = campaign(args, Path(folder))
    tell(args, cases)
    if any(case["outcome"] != "same" for case in cases):
        sys.exit(1)


def warm_up() -> None:
    """Import all that a run imports, so that a forked child begins at once."""
    import matplotlib.backends.backend_agg  # noqa: F401
    import peft  # noqa: F401
    import torch

    import isentropic.commands.train  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # the children's collector passes over what is imported


def campaign(args: argparse.Namespace, folder: Path) -> list[Row]:
    chance, model = random.Random(args.seed), tiny_model()
    ways = args.way or list(WAYS)
    whole = {way: whole_run(way, model, folder / "whole" / way) for way in ways}
    kinds = ["kill"] * args.kills + ["crash point"] * args.crash_points
    chance.shuffle(kinds)
    cases, begun = [], time.monotonic()
    for number, kind in enumerate(kinds):
        if time.monotonic() - begun > 60 * args.minutes:
            break
        way = ways[number % len(ways)]
        if kind == "kill":
            first: Row = {"kill_after": chance.uniform(0, whole[way]["seconds"])}
        else:
            at = chance.randrange(len(whole[way]["operations"]))
            first = {"at": at + 1, "how": chance.choice(("before", "empty", "half"))}
            first["operation"] = whole[way]["operations"][at]
        place = folder / "case"
        place.mkdir()
        case = {"kind": kind, "way": way, **one_case(way, model, place, first, chance, whole[way])}
        cases.append(case)
        shutil.rmtree(place)
        if case["outcome"] != "same":
            print(json.dumps(case, indent=1), file=sys.stderr, flush=True)
        if number % 20 == 19:
            print(f"{number + 1} of {len(kinds)} ...", file=sys.stderr, flush=True)
    return cases


def tell(args: argparse.Namespace, cases: list[Row]) -> None:
    rows = []
    for kind in ("kill", "crash point"):
        of_kind = [case for case in cases if case["kind"] == kind]
        counts = Counter(case["outcome"].split()[0] for case in of_kind)
        starts = sum(len(case["starts"]) for case in of_kind)
        died = sum(row["exit"] == DEAD for case in of_kind for row in case["starts"])
        rows.append(
            [
                kind,
                len(of_kind),
                starts,
                died,
                counts["same"],
                counts["other"],
                counts["lost"],
                counts["traceback"],
            ]
        )
    head = [
        "fault",
        "runs",
        "starts",
        "of these killed",
        "same weights and files",
        "other",
        "lost",
        "tracebacks",
    ]
    publish(args, "torture", table(head, rows), {"cases": cases})


if __name__ == "__main__":
    main()
