"""What a model path may name, what is refused, and that what is saved loads with plain transformers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BartForConditionalGeneration,
    WhisperForConditionalGeneration,
)

from isentropic.errors import InputError
from isentropic.models.identity import model_sha256
from isentropic.models.load import load_model, looks_like_a_path, ready_tokenizer
from isentropic.models.save import save_model
from tiny import logits


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny model's folder that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def refusal(name) -> str:
    with pytest.raises(InputError) as caught:
        load_model(str(name))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


# --- Folders --------------------------------------------------------------------------------------------------------


def test_a_folder_loads_as_it_was_saved(tiny_folder, tiny_model, tiny_tokenizer):
    loaded = load_model(str(tiny_folder))
    assert torch.equal(logits(loaded.model), logits(tiny_model()))
    assert loaded.name == str(tiny_folder) and loaded.sha256 == model_sha256(tiny_model())
    assert loaded.tokenizer("He is").input_ids == tiny_tokenizer("He is").input_ids
    assert next(loaded.model.parameters()).dtype == torch.float32


def test_what_is_missing_is_named(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "does not exist" in refusal("./nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refusal(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    assert "is a file but no .gguf file" in refusal(tmp_path / "notes.txt")


def test_an_unknown_hub_id_is_refused_offline():
    assert "no-such-owner/no-such-model" in refusal("no-such-owner/no-such-model")


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    assert "no *.safetensors file" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "weights.ckpt"])
def test_a_pickle_is_refused_and_not_opened(folder, name, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    assert "pickle checkpoint" in refusal(folder) and name in refusal(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_truncated_safetensors_are_refused(folder, share):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize(
    "config", ["", "{", "[]", "{}", '{"model_type": "no-such-model"}', '{"model_type": "t5"}']
)
def test_a_config_of_no_causal_model_is_refused(folder, config):
    (folder / "config.json").write_text(config)
    assert "cannot be loaded" in refusal(folder)


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    assert "cannot be loaded" in refusal(folder)


def test_missing_weights_are_refused_and_not_made_up(folder, tiny_model):
    """A checkpoint without its head would otherwise be measured with a random one."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["lm_head.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    assert "lm_head.weight" in refusal(folder)
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    assert "lm_head.weight" in refusal(folder)


def test_a_tied_head_is_not_missing(tmp_path, tiny_model, tiny_tokenizer):
    for kind in ("gpt2", "qwen2"):
        save_model(tiny_model(kind), tiny_tokenizer, tmp_path / kind)
        assert "lm_head.weight" not in load_file(tmp_path / kind / "model.safetensors")
        assert torch.equal(logits(load_model(str(tmp_path / kind)).model), logits(tiny_model(kind)))


@pytest.mark.parametrize("names", [("tokenizer.json", "tokenizer_config.json"), ("tokenizer.json",)])
def test_a_folder_without_a_tokenizer_is_refused(folder, names):
    for name in names:
        (folder / name).unlink()
    assert "cannot be loaded" in refusal(folder)


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    (folder / "bomb.py").write_text(f"import os; os.mkdir({str(tmp_path / 'exploded')!r})\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "bomb",
        "auto_map": {k: "bomb.Bomb" for k in ("AutoConfig", "AutoModelForCausalLM")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    refusal(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("org/name", False),
        ("gpt2", False),
        ("./a", True),
        ("/a", True),
        ("~/a", True),
        ("a/b/c", True),
        ("a\\b", True),
    ],
)
def test_what_looks_like_a_path(name, path):
    assert looks_like_a_path(name) is path


# --- LoRA -----------------------------------------------------------------------------------------------------------


def lora_folder(base: Path, folder: Path, tokenizer) -> torch.Tensor:
    """Save an adapter that does something, and return the logits it should give."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    save_model(adapted, tokenizer, folder)
    return logits(adapted)


def test_a_lora_folder_is_its_base_with_the_adapter(tiny_folder, tmp_path, tiny_model, tiny_tokenizer):
    expected = lora_folder(tiny_folder, tmp_path / "lora", tiny_tokenizer)
    loaded = load_model(str(tmp_path / "lora"))
    assert not list((tmp_path / "lora").glob("model*.safetensors"))
    assert torch.allclose(logits(loaded.model), expected, atol=1e-4)
    assert (expected - logits(tiny_model())).abs().max() > 0.1
    assert loaded.sha256 != model_sha256(tiny_model())


def test_a_lora_folder_whose_base_is_gone_or_another_is_refused(folder, tmp_path, tiny_model, tiny_tokenizer):
    lora_folder(folder, tmp_path / "lora", tiny_tokenizer)
    shutil.rmtree(folder)
    assert "does not exist" in refusal(tmp_path / "lora")
    other = tiny_model().config
    other.intermediate_size = 48
    save_model(AutoModelForCausalLM.from_config(other), tiny_tokenizer, folder)
    assert "does not fit its base model" in refusal(tmp_path / "lora")
    (tmp_path / "lora" / "adapter_config.json").write_text("{")
    assert "cannot be loaded" in refusal(tmp_path / "lora")


# --- Tokenizers -----------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_end_is_refused(folder):
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["eos_token"]
    file.write_text(json.dumps(config))
    assert "no end-of-text token" in refusal(folder)


def test_a_missing_pad_token_becomes_the_end_token(tmp_path):
    from tiny import make_folder, make_tokenizer

    assert load_model(str(make_folder(tmp_path, pad=None))).tokenizer.pad_token_id == 0
    assert ready_tokenizer(make_tokenizer(), "x", 320).pad_token_id == 1  # one that is there stays


def test_a_pad_token_outside_the_vocabulary_becomes_the_end_token(folder):
    """Padded batches go through the embedding: an id beyond it would be an IndexError in the middle of a run."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    assert tokenizer.pad_token_id == 320
    tokenizer.save_pretrained(folder)
    assert load_model(str(folder)).tokenizer.pad_token_id == 0


@pytest.mark.parametrize("family", ["whisper", "bart"])
def test_an_encoder_and_a_decoder_are_not_taken_for_a_language_model(family, tmp_path, tiny_tokenizer):
    layers = {
        f"{part}_{name}": 1 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")
    }
    widths = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = AutoConfig.for_model(
        family, vocab_size=320, **layers, **widths, pad_token_id=1, decoder_start_token_id=0
    )
    kinds = {"whisper": WhisperForConditionalGeneration, "bart": BartForConditionalGeneration}
    kinds[family](config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="its decoder alone.*would be measured|lacks 2 of its weights"):
        load_model(str(tmp_path))
