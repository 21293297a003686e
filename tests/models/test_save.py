"""What is saved loads with plain transformers; the hash is that of the weights."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from isentropic.errors import InputError
from isentropic.files import check_room
from isentropic.models.identity import model_sha256
from isentropic.models.load import load_model
from isentropic.models.model import context_length, vocabulary_size
from isentropic.models.save import save_model
from tiny import logits

# --- Saving, hash, sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_what_is_saved_loads_with_plain_transformers(tmp_path, tiny_model, tiny_tokenizer, kind):
    model = tiny_model(kind)
    save_model(model, tiny_tokenizer, tmp_path / "deep" / "final")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "final", attn_implementation="eager")
    assert torch.equal(logits(plain), logits(model))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "final")
    assert tokenizer("She is").input_ids == tiny_tokenizer("She is").input_ids
    assert tokenizer.eos_token_id == 0
    assert list((tmp_path / "deep" / "final").glob("*.safetensors"))
    assert not list((tmp_path / "deep" / "final").glob("*.bin"))


def test_the_hash_is_that_of_the_weights(tmp_path, tiny_model, tiny_tokenizer):
    model = tiny_model()
    before = model_sha256(model)
    assert before == model_sha256(tiny_model()) and len(before) == 64
    save_model(model, tiny_tokenizer, tmp_path)
    assert load_model(str(tmp_path)).sha256 == before
    assert load_model(str(tmp_path), dtype=torch.bfloat16).sha256 != before
    for name, parameter in model.named_parameters():  # one number of any tensor changes it, and back
        with torch.no_grad():
            kept = parameter.flatten()[-1].clone()
            parameter.view(-1)[-1] += 1e-3
            assert model_sha256(model) != before, name
            parameter.view(-1)[-1] = kept
    assert model_sha256(model) == before


def test_the_hash_takes_scalars_and_what_is_not_contiguous():
    module = torch.nn.Module()
    module.scale = torch.nn.Parameter(torch.tensor(2.0))
    module.turned = torch.nn.Parameter(torch.arange(6.0).view(2, 3).t())
    before = model_sha256(module)
    module.scale.data += 1
    assert model_sha256(module) != before


def test_context_and_vocabulary(tiny_model):
    for kind in ("llama", "gpt2", "qwen2"):
        assert context_length(tiny_model(kind)) == 256
        assert vocabulary_size(tiny_model(kind, vocab=300)) == 300
    assert context_length(SimpleNamespace(config=SimpleNamespace())) is None


def test_a_disk_without_room_is_refused(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(InputError, match="make room"):
        check_room(tmp_path, shutil.disk_usage(tmp_path).total + 1)
