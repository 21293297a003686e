"""Steps of natural length: each closes half of the gap, for either loss, any scale and any split of the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isentropic.errors import InputError
from isentropic.training.config import DebiasingConfig
from isentropic.training.natural import natural_steps
from isentropic.training.trainer import DebiasingTrainer


@pytest.mark.parametrize(("degree", "scale"), [(1, 1.0), (2, 1.0), (1, 0.3), (2, 7.0)])
def test_a_linear_gap_is_halved_by_each_step(degree: int, scale: float) -> None:
    torch.manual_seed(0)
    w, direction = nn.Parameter(torch.randn(5)), torch.randn(5)

    def loss() -> torch.Tensor:
        return scale * (direction @ w).abs() ** degree

    gap = float((direction @ w).detach())
    steps = natural_steps([w], lambda: float(loss().detach()), degree)
    for k in range(1, 4):
        loss().backward()
        steps.step()
        steps.zero_grad()
        assert float((direction @ w).detach()) == pytest.approx(gap / 2**k, rel=1e-5)
    assert not steps.state  # no moments


def test_a_gap_of_zero_moves_nothing() -> None:
    w = nn.Parameter(torch.zeros(3))
    steps = natural_steps([w], lambda: float(w.detach().sum() ** 2), 2)
    (w.sum() ** 2).backward()
    steps.step()
    assert torch.equal(w.detach(), torch.zeros(3))


def gaps(tiny_model, tokenizer, prompts, folder, **changes):
    """The training gap of each step, and the trained weights."""
    settings = {
        "output_dir": str(folder), "bf16": False, "use_cpu": True, "effective_batch": 48, "micro_batch_size": 4,
        "max_steps": 4, "eval_steps": 10, "max_new_tokens": 4, "natural": True, "hold": "none",
    }  # fmt: skip
    trainer = DebiasingTrainer(
        tiny_model("llama"), DebiasingConfig(**settings | changes), prompts, processing_class=tokenizer
    )
    trainer.train()
    rows = [row["entropy_gap_signed"] for row in trainer.state.log_history if "entropy_gap_signed" in row]
    return rows, torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("l1", [False, True])
@pytest.mark.slow
def test_a_run_whose_batch_is_all_pairs_halves_its_gap_however_the_batch_is_split(
    tiny_model, tiny_tokenizer, tiny_prompts, tmp_path, l1
) -> None:
    found = [
        gaps(tiny_model, tiny_tokenizer, tiny_prompts, tmp_path, use_l1=l1, micro_batch_size=size)
        for size in (48, 4)
    ]
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=0)
    rows = found[1][0]
    assert abs(rows[0]) > 0.01
    for before, after in zip(rows, rows[1:], strict=False):
        assert 0.3 < after / before < 0.7, rows


def test_losses_that_do_not_end_at_zero_are_refused() -> None:
    for changes in ({"loss": "gee"}, {"estimator": "unbiased"}, {"gap_over": "micro_batch"}):
        with pytest.raises(InputError, match="natural"):
            DebiasingConfig(output_dir="unused", natural=True, **changes)
