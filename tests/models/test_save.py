"""What is saved loads with plain transformers; the hash is that of the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from isentropic.errors import InputError
from isentropic.files import check_room
from isentropic.models.identity import model_sha256
from isentropic.models.load import load_model
from isentropic.models.model import context_length, vocabulary_size
from isentropic.models.save import save_model, saved_otherwise
from isentropic.models.trial import sentence_logits
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
    assert (
        context_length(BloomForCausalLM(BloomConfig(vocab_size=9, hidden_size=8, n_layer=1, n_head=2)))
        is None
    )


@pytest.mark.parametrize(
    "family, config, length",
    [
        ("mpt", {"d_model": 32, "n_layers": 1, "n_heads": 2, "max_seq_len": 21}, 21),
        ("whisper", {"max_target_positions": 21, "pad_token_id": 0}, 21),
        ("opt", {"max_position_embeddings": 21, "word_embed_proj_dim": 32}, 21),
        ("bart", {"max_position_embeddings": 21}, 21),
        ("ctrl", {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 21}, 21),
        ("roberta", {"is_decoder": True, "max_position_embeddings": 24, "pad_token_id": 2}, 21),
        ("xlm-roberta", {"is_decoder": True, "max_position_embeddings": 22, "pad_token_id": 0}, 21),
    ],
)
def test_the_context_is_found_whatever_its_name_and_is_what_the_model_takes(family, config, length):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    if family in ("bart", "whisper"):
        small = {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    if family in ("ctrl", "mpt"):
        small = {}
    made = AutoConfig.for_model(family, vocab_size=40, **small | config)
    model = AutoModelForCausalLM.from_config(made).eval()
    assert context_length(model) == length
    assert model(torch.arange(3, 24)[None]).logits.shape == (1, 21, 40)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.arange(3, 25)[None])


def test_a_disk_without_room_is_refused(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(InputError, match="free some space"):
        check_room(tmp_path, shutil.disk_usage(tmp_path).total + 1)


# --- Generation settings that can be read and not written -----------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kept", "dropped"),
    [
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, {}, ["temperature", "top_p"]),
        (
            {"do_sample": False, "typical_p": 0.5, "repetition_penalty": 1.2},
            {"repetition_penalty": 1.2},
            ["typical_p"],
        ),
        (
            {"num_beams": 1, "early_stopping": True, "length_penalty": 2.0},
            {},
            ["early_stopping", "length_penalty"],
        ),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, {"temperature": 0.6, "top_p": 0.9}, []),
    ],
)
def test_generation_settings_that_cannot_be_written_do_not_cost_a_model(
    tmp_path, tiny_folder, settings, kept, dropped, caplog
):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    file = folder / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [0, 7], "bos_token_id": 1, **settings}))
    loaded = load_model(str(folder))
    for name in dropped:
        assert name in caplog.text
    loaded.model.save_pretrained(tmp_path / "checkpoint")  # as the Trainer does
    save_model(loaded.model, loaded.tokenizer, tmp_path / "final")
    written = json.loads((tmp_path / "final" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [0, 7] and written["bos_token_id"] == 1
    assert kept.items() <= written.items() and not set(dropped) & set(written)


def test_generation_settings_in_the_models_configuration_do_not_cost_it(tmp_path, tiny_folder):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "temperature": 0.7, "do_sample": True, "top_k": 7})
    )
    (folder / "generation_config.json").unlink(missing_ok=True)
    loaded = load_model(str(folder))
    save_model(loaded.model, loaded.tokenizer, tmp_path / "final")
    AutoModelForCausalLM.from_pretrained(tmp_path / "final")


# --- What was saved, looked at again --------------------------------------------------------------------------------


def test_a_saved_folder_is_held_against_the_model_that_was_measured(tmp_path, tiny_model, tiny_tokenizer):
    model = tiny_model().train()
    save_model(model, tiny_tokenizer, tmp_path)
    truth = sentence_logits(model, tiny_tokenizer)
    assert model.training and saved_otherwise(tmp_path, truth, tiny_tokenizer) is None
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] *= 1.01
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "not the model that was measured" in str(saved_otherwise(tmp_path, truth, tiny_tokenizer))
    (tmp_path / "config.json").unlink()
    assert "cannot be loaded" in str(saved_otherwise(tmp_path, truth, tiny_tokenizer))


def test_a_saved_folder_is_loaded_as_the_measured_model_was(tmp_path, tiny_model, tiny_tokenizer):
    """Weights that are no floats keep what they were loaded as; here a stand-in that refuses a cast, as they do."""
    model = tiny_model()
    save_model(model, tiny_tokenizer, tmp_path)
    truth = sentence_logits(model, tiny_tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "is_quantized", True, raising=False)
        patch.setattr(type(model), "float", lambda self: pytest.fail("quantised weights were cast"))
        assert saved_otherwise(tmp_path, truth, tiny_tokenizer, dtype=torch.float32) is None
    coarse = saved_otherwise(tmp_path, truth.half().float(), tiny_tokenizer, dtype=torch.bfloat16)
    assert "not the model that was measured" in str(coarse)  # the options reach the loader


def test_an_adapter_merged_into_a_tied_head_is_not_what_was_measured(tmp_path, tiny_model, tiny_tokenizer):
    """The head's adapter is merged into the embeddings, which share its weights."""
    from peft import LoraConfig, get_peft_model

    save_model(tiny_model("qwen2"), tiny_tokenizer, tmp_path / "base")
    for modules, same in ((["q_proj"], True), (["q_proj", "lm_head"], False)):
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        config = LoraConfig(r=2, target_modules=modules, task_type="CAUSAL_LM", init_lora_weights=False)
        adapted = get_peft_model(base, config)
        save_model(adapted, tiny_tokenizer, tmp_path / "adapter")
        truth = sentence_logits(adapted, tiny_tokenizer)
        assert saved_otherwise(tmp_path / "adapter", truth, tiny_tokenizer) is None
        save_model(adapted.merge_and_unload(), tiny_tokenizer, tmp_path / "merged")
        assert (saved_otherwise(tmp_path / "merged", truth, tiny_tokenizer) is None) is same
