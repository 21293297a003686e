"""The entropy engine against naive PyTorch, TRL and Liger-Kernel: time and peak extra memory.

    python benchmarks/entropy_engine.py [--quick] [--threads 2] [--repeats 3] [--device cuda --dtype bfloat16]

Every run has a process of its own, so that its peak memory is its own; the sides take turns. "Extra" memory is
the peak beyond inputs and their gradients. Results go to benchmarks/results/entropy_engine.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from isentropic.entropy.engine import DEFAULT_CHUNK_BYTES, Head, entropy_from_hidden, weighted_entropy
from isentropic.entropy.reference import token_entropy

SIZES = [(1024, 576, 49152), (4096, 896, 151936)]
QUICK = [(256, 576, 49152)]
RESULTS = Path(__file__).parent / "results" / "entropy_engine.json"


# ---- the sides: (hidden, weight, coefficients) -> sum_i c_i H_i ------------------------------------------------


def naive(hidden: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    """What one writes first: log_softmax and autograd."""
    log_p = torch.log_softmax((hidden @ weight.t()).float(), dim=-1)
    return (-(log_p.exp() * log_p).sum(dim=-1) * coefficients).sum()


def engine_known(
    hidden: Tensor, weight: Tensor, coefficients: Tensor, chunk_bytes: int | None = None
) -> Tensor:
    return weighted_entropy(hidden, Head(weight), coefficients, chunk_bytes=chunk_bytes)[0]


def engine_unknown(hidden: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    return (entropy_from_hidden(hidden, Head(weight)) * coefficients).sum()


def trl(hidden: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    """TRL's chunked log-probabilities with their differentiable entropy: tiles of 4096 tokens x 32768 words, as TRL sets."""
    from trl.kernels import ChunkedLogProbFunction

    targets = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    entropies = ChunkedLogProbFunction.apply(
        hidden, weight, None, targets, 1.0, 32768, None, 1.0, ("entropy",)
    )[1]
    return (entropies * coefficients).sum()


def trl_style(hidden: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    """All logits at once, entropies by chunks of 128 rows, as TRL's `entropy_from_logits` does."""
    logits = hidden @ weight.t()
    entropies = torch.cat([token_entropy(chunk) for chunk in logits.split(128)])
    return (entropies * coefficients).sum()


def liger(hidden: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    """Liger-Kernel's fused entropy: its own kernel on Hopper, its plain PyTorch fall-back elsewhere."""
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction as Fused

    targets = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
    return (Fused.apply(hidden, weight, targets, 1.0, -100, 1, True)[1].float() * coefficients).sum()


Side = Callable[[Tensor, Tensor, Tensor], Tensor]
BACKWARD: dict[str, Side] = {
    "naive": naive,
    "engine, known weights": engine_known,
    "engine, unknown weights": engine_unknown,
    "TRL": trl,
    "Liger": liger,
}
FORWARD: dict[str, Side] = {
    "naive": naive,
    "engine": engine_unknown,
    "TRL": trl,
    "all logits": trl_style,
    "Liger": liger,
}


# ---- one run, in a process of its own --------------------------------------------------------------------------


def peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def one_run(job: dict) -> dict:
    torch.set_num_threads(job["threads"])
    dtype, device = getattr(torch, job["dtype"]), job["device"]
    side = (BACKWARD if job["backward"] else FORWARD)[job["side"]]

    def inputs(n: int, d: int, v: int) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        hidden = torch.randn(n, d, device=device, dtype=dtype)
        weight = torch.randn(v, d, device=device, dtype=dtype).mul_(2 * d**-0.5)
        coefficients = torch.randn(n, device=device)
        return hidden.requires_grad_(job["backward"]), weight.requires_grad_(job["backward"]), coefficients

    def run(data: tuple[Tensor, Tensor, Tensor]) -> tuple[float, float]:
        start = time.perf_counter()
        with torch.set_grad_enabled(job["backward"]):
            loss = side(*data)
        if job["backward"]:
            loss.backward()
        value = loss.item()  # waits for the device
        return time.perf_counter() - start, value

    # Threads, libraries and kernels start on a small input; a GPU also takes its memory on a full run.
    run(inputs(8, 64, 1024) if device == "cpu" else inputs(*job["size"]))
    gc.collect()
    data = inputs(*job["size"])
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device == "cuda" else peak_bytes(device)
    seconds, value = run(data)
    gradients = [x.grad for x in data[:2] if x.grad is not None]
    extra = peak_bytes(device) - before - sum(g.numel() * g.element_size() for g in gradients)
    return {
        "seconds": seconds,
        "extra_bytes": max(extra, 0),
        "value": value,
        "gradient_norms": [g.float().norm().item() for g in gradients],
    }


def in_own_process(job: dict) -> dict | str:
    """The result of `one_run`, or the last line of its error."""
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    threads = str(job["threads"])
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1])


# ---- the table -------------------------------------------------------------------------------------------------


def compare(
    sides: dict[str, Side], size: tuple[int, int, int], backward: bool, args: argparse.Namespace
) -> dict:
    """Medians of interleaved runs, and ratios to naive."""
    runs: dict[str, list[dict]] = {name: [] for name in sides}
    failed: dict[str, str] = {}
    for _ in range(args.repeats):
        for name in sides:
            if name in failed:
                continue
            job = {"side": name, "size": size, "backward": backward, "threads": args.threads,
                   "device": args.device, "dtype": args.dtype}  # fmt: skip
            result = in_own_process(job)
            if isinstance(result, str):
                failed[name] = result
            else:
                runs[name].append(result)
    table: dict[str, dict] = {}
    for name, results in runs.items():
        if name in failed:
            table[name] = {"not_run": failed[name]}
            continue
        table[name] = {
            "seconds": statistics.median(r["seconds"] for r in results),
            "extra_bytes": statistics.median(r["extra_bytes"] for r in results),
            "all_seconds": [r["seconds"] for r in results],
            "value": results[0]["value"],
            "gradient_norms": results[0]["gradient_norms"],
        }
    base = table["naive"]
    for row in table.values():
        if "not_run" not in row and "not_run" not in base:
            row["time_ratio"] = row["seconds"] / base["seconds"]
            row["memory_ratio"] = row["extra_bytes"] / base["extra_bytes"]
    return table


def show(title: str, table: dict) -> None:
    print(f"\n{title}")
    print(f"  {'time':>7} {'memory':>8}   of naive   {'seconds':>9} {'extra MB':>9}")
    for name, row in table.items():
        if "not_run" in row:
            print(f"  {'':33}not run: {name}: {row['not_run'][:70]}")
            continue
        ratios = f"{row.get('time_ratio', float('nan')):7.2f} {row.get('memory_ratio', float('nan')):8.3f}"
        print(f"  {ratios} {'':12} {row['seconds']:9.3f} {row['extra_bytes'] / 1e6:9.0f}   {name}")


def machine(args: argparse.Namespace) -> dict:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": args.threads,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "dtype": args.dtype,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "chunk_bytes": DEFAULT_CHUNK_BYTES["cpu" if args.device == "cpu" else "gpu"],
        "repeats": args.repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median counts")
    parser.add_argument("--quick", action="store_true", help="one small size")
    parser.add_argument(
        "--size", action="append", help="tokens,hidden,vocabulary in place of the usual sizes"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(one_run(json.loads(args.job))))
        return
    sizes = [tuple(int(x) for x in size.split(",")) for size in args.size or []] or (
        QUICK if args.quick else SIZES
    )
    report: dict = {"schema": "isentropic.bench.entropy_engine/1", "machine": machine(args), "sizes": []}
    print(json.dumps(report["machine"]))
    for size in sizes:
        entry = {"tokens": size[0], "hidden": size[1], "vocabulary": size[2]}
        entry["forward and backward"] = compare(BACKWARD, size, True, args)
        show(f"{size}, forward and backward", entry["forward and backward"])
        entry["forward only"] = compare(FORWARD, size, False, args)
        show(f"{size}, forward only", entry["forward only"])
        report["sizes"].append(entry)
        if not args.quick and not args.size:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
