"""Adapters: on what can be adapted, and nothing is left behind where they cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from isentropic.errors import InputError
from isentropic.training.adapter import add_adapter, check_trainable
from tiny import make_model

peft = pytest.importorskip("peft")
IDS = torch.arange(3, 20)[None]
SMALL = {"vocab_size": 60, "hidden_size": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
DEEP = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}


def lora(targets: Any = "all-linear", **more: Any) -> Any:
    return peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, task_type="CAUSAL_LM", **more)


def built(kind: str, **sizes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **sizes)).eval()


def mamba() -> Any:
    return built("mamba", num_hidden_layers=2, state_size=4, time_step_rank=4)


def phimoe() -> Any:
    return built("phimoe", **DEEP, num_local_experts=2, num_experts_per_tok=2)


class Loud(nn.Linear):
    """A linear layer that says more than its output."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), "more"


class Heard(nn.Module):
    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.loud = Loud(inner.in_features, inner.out_features, bias=False)
        self.loud.weight = inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.loud(x)[0]


def with_a_loud_layer() -> Any:
    model = make_model()
    model.model.layers[1].mlp.gate_proj = Heard(model.model.layers[1].mlp.gate_proj)
    return model


def adapted_layers(model: nn.Module) -> set[str]:
    return {
        name.split(".lora_A")[0].rsplit(".", 1)[-1]
        for name, _ in model.named_parameters()
        if "lora_A" in name
    }


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize(
    "make, left_out, adapted",
    [
        (make_model, "lm_head", "q_proj"),
        (lambda: make_model("gpt2"), "lm_head", "c_attn"),
        (mamba, "out_proj", "in_proj"),
        (phimoe, "router", "q_proj"),
        (with_a_loud_layer, "loud", "gate_proj"),
    ],
)
def test_an_adapter_on_what_can_be_adapted(make, left_out, adapted):
    model, before = make(), logits(make())
    model = add_adapter(model, lora(), seed=3)
    assert adapted in adapted_layers(model) and left_out not in adapted_layers(model)
    assert torch.equal(logits(model), before)
    model(input_ids=IDS).logits.square().mean().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained and all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    moved = logits(model)
    assert not torch.allclose(moved, before, atol=1e-3)
    assert torch.allclose(logits(model.merge_and_unload()), moved, atol=1e-4)


def test_an_adapter_starts_from_its_seed_alone():
    def first(seed: int) -> torch.Tensor:
        model = add_adapter(mamba(), lora(), seed)
        return torch.cat([p.detach().flatten() for name, p in model.named_parameters() if "lora_A" in name])

    torch.manual_seed(1)
    one = first(5)
    assert torch.equal(one, first(5)) and not torch.equal(one, first(6))


@pytest.mark.parametrize(
    "make, targets, words",
    [
        (mamba, ["in_proj", "out_proj"], "out_proj"),
        (with_a_loud_layer, ["loud"], "does not work on this model"),
        (make_model, ["norm"], "does not work on this model"),
        (make_model, ["nothing_of_the_kind"], "does not work on this model"),
        (lambda: make_model("qwen2"), ["q_proj", "lm_head"], "'lm_head', whose weight another layer shares"),
        (lambda: make_model("qwen2"), ["embed_tokens"], "'embed_tokens', whose weight"),
        (lambda: make_model("gpt2"), ["wte"], "'wte', whose weight"),
    ],
)
def test_layers_that_cannot_be_adapted_are_refused_and_the_model_is_as_before(make, targets, words):
    model, before = make(), logits(make())
    modules = [type(module) for module in model.modules()]
    with pytest.raises(InputError, match=words):
        add_adapter(model, lora(targets), seed=0)
    assert [type(module) for module in model.modules()] == modules
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(logits(model), before)
    add_adapter(model, lora(), seed=0)


def test_a_head_of_its_own_takes_an_adapter():
    assert adapted_layers(add_adapter(make_model(), lora(["lm_head", "embed_tokens"]), 0)) == {"lm_head"}


def test_weights_that_cannot_be_trained_are_refused():
    model = make_model()
    check_trainable(model, adapted=False, checkpointing=True)
    with pytest.raises(InputError, match="CTRLLMHeadModel, which does not support it"):
        check_trainable(
            built("ctrl", n_embd=16, dff=16, n_layer=1, n_head=2, n_positions=64), False, checkpointing=True
        )
    model.is_quantized = True
    check_trainable(model, adapted=True, checkpointing=False)
    with pytest.raises(InputError, match="quantised"):
        check_trainable(model, adapted=False, checkpointing=False)
