"""What the benchmarks share: flags, machine and versions, processes of their own, medians, tables, files."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import io
import json
import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
EMBEDDED = "smollm2-135m"
Row = dict[str, Any]


# --- Flags ----------------------------------------------------------------------------------------------------------


def parser(doc: str, name: str, *, repeats: int | None = None) -> argparse.ArgumentParser:
    """The flags every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--quick", action="store_true", help="a tiny random model in this process: a smoke test"
    )
    made.add_argument("--model", default=EMBEDDED, help="folder, hub id, .gguf file or the embedded default")
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    made.add_argument("--threads", type=int, default=cores)
    made.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="where the figures go")
    made.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    if repeats is not None:
        made.add_argument("--repeats", type=int, default=repeats, help="runs of each side; the median counts")
    return made


def model_name(args: argparse.Namespace) -> str:
    return tiny_model() if args.quick and args.model == EMBEDDED else args.model


def as_on_the_hub(model: str, folder: Path) -> str:
    """A folder with the model's weights as most models come: rounded to bfloat16 and saved as that."""
    if not any(folder.glob("*.safetensors")):
        import torch

        from isentropic import load_model
        from isentropic.models.save import save_model

        loaded = load_model(model)
        save_model(loaded.model.to(torch.bfloat16), loaded.tokenizer, folder)
    return str(folder)


@functools.cache
def tiny_model() -> str:
    """A folder with a random Llama of 2 layers and the words of the built-in prompts; gone when Python ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    from isentropic.prompts.load import load_prompts

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = (prompt.text for prompt in load_prompts().prompts)
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<unk>", "<end>"]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    set_seed(0)
    # Large initial weights: a random model whose entropies differ from prompt to prompt.
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, initializer_range=0.3, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    folder = tempfile.mkdtemp(prefix="isentropic-tiny-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- Running --------------------------------------------------------------------------------------------------------


def run_job(script: str, job: Row, one_run: Callable[[Row], Row]) -> Row:
    """The result of ``one_run(job)`` in a process of its own, so that its peak memory is its own (``quick``: in this)."""
    if job["quick"]:
        return one_run(job)
    done = subprocess.run(
        [sys.executable, script, "--job", json.dumps(job)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(job["threads"]),
    )
    if done.returncode:
        sys.exit(f"{Path(script).name} failed on {job}")
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(sides: Iterable[str], repeats: int, run: Callable[[str], Row]) -> dict[str, list[Row]]:
    """``repeats`` runs of each side, the sides taking turns."""
    runs: dict[str, list[Row]] = {side: [] for side in sides}
    for number in range(repeats):
        for side, found in runs.items():
            print(f"{side}, run {number + 1} of {repeats} ...", file=sys.stderr, flush=True)
            found.append(run(side))
    return runs


def medians(runs: Sequence[Row]) -> Row:
    """The median of every number."""
    numbers = [key for key, value in runs[0].items() if isinstance(value, (int, float))]
    return {key: statistics.median(run[key] for run in runs) for key in numbers}


def isentropic(*words: Any, threads: int, quick: bool) -> None:
    """The real command line, in a process of its own (``quick``: in this one)."""
    given = [str(word) for word in words]
    if quick:
        from isentropic.cli import main

        with contextlib.redirect_stdout(io.StringIO()):
            code = main(given)
    else:
        command = [sys.executable, "-m", "isentropic", *given]
        code = subprocess.run(command, stdout=sys.stderr, env=environment(threads)).returncode
    if code:
        sys.exit(f"isentropic {' '.join(given)} ended with exit code {code}")


def train_run(folder: Path, name: str, flags: Sequence[Any], args: argparse.Namespace) -> Row:
    """What ``isentropic train`` wrote into a run folder; a run that is finished is read and not made again."""
    run = folder / name

    def read(file: str) -> Any:
        return json.loads((run / file).read_text(encoding="utf-8"))

    if not (run / "gap_after.json").is_file() or read("result.json")["stopped"] == "interrupted":
        print(f"{run} ...", file=sys.stderr, flush=True)
        where = ["--output_dir", folder, "--run_name", name, "--overwrite", "--model_path", model_name(args)]
        isentropic("train", *where, *flags, threads=args.threads, quick=args.quick)
    steps = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "result": read("result.json"),
        "before": read("gap_before.json"),
        "after": read("gap_after.json"),
        "kl": read("comparison.json")["models"][-1]["cost"]["kl_to_first"],
        "steps": [json.loads(line) for line in steps],
    }


def drop_weights(run: Path) -> None:
    """Delete a run's models; its figures and its report stay."""
    for file in [*run.rglob("*.safetensors"), *run.rglob("optimizer.pt")]:
        file.unlink()


def environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def step_seconds(rows: list[Row]) -> list[float]:
    """Seconds of every step in a run's metrics that follows a step, not a held-out measurement."""
    return [
        after["seconds"] - before["seconds"]
        for before, after in zip(rows, rows[1:], strict=False)
        if "loss" in before and "loss" in after
    ]


# --- Memory ---------------------------------------------------------------------------------------------------------


def memory_mb(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process in MB. A peak of ``getrusage`` may be that of the parent."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def start_peak() -> float:
    """Forget the peak so far (Linux); returns what is held now, in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def peak_mb() -> float:
    return memory_mb("VmHWM")


# --- Telling --------------------------------------------------------------------------------------------------------


def machine(threads: int) -> Row:
    """Processor, cores, memory, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for package in ("isentropic", "torch", "transformers", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": versions,
    }


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def publish(args: argparse.Namespace, name: str, text: str, figures: Row) -> str:
    """Print the tables with machine and command under them, write the JSON; returns the Markdown."""
    about = machine(args.threads)
    words = sys.argv[1:] if Path(sys.argv[0]).stem == name else []
    if "--out" in words:
        del words[words.index("--out") : words.index("--out") + 2]
    command = shlex.join(["python", f"benchmarks/{name}.py", *words])
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    page = (
        f"{text}\n\nMachine: {about['processor']}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['memory_gb']} GB. Versions: {versions}. Model: "
        f"{'tiny random' if args.quick else args.model}. Command: `{command}`.\n"
    )
    print(page)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"schema": f"isentropic.bench.{name}/1", "command": command, "machine": about, **figures}
    args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return page


def into_page(path: Path, name: str, text: str, title: str) -> None:
    """Put the text between its own two markers on a page; append them where they are not there yet."""
    start, end = f"<!-- tables: python benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    page = path.read_text(encoding="utf-8") if path.is_file() else f"# {title}\n"
    if start not in page:
        page += f"\n{start}\n{end}\n"
    before, rest = page.split(start, 1)
    after = rest.split(end, 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{start}\n\n{text}\n{end}{after}", encoding="utf-8")
