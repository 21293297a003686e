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
from isentropic.models.save import save_model, saved_otherwise
from isentropic.models.trial import sentence_logits
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
    assert "is a file but not a .gguf file" in refusal(tmp_path / "notes.txt")


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


def test_code_that_comes_with_a_model_is_not_run_and_its_flag_is_named(folder, tmp_path):
    (folder / "bomb.py").write_text(f"import os; os.mkdir({str(tmp_path / 'exploded')!r})\n")
    code = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "bomb.Bomb")
    edit(folder / "config.json", model_type="bomb", auto_map=code)
    assert "--trust_remote_code" in refusal(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("path", [False, True])
def test_what_looks_like_a_path(path):
    names = ["./a", "/a", "~/a", "a/b/c", "a\\b"] if path else ["org/name", "gpt2"]
    assert all(looks_like_a_path(name) is path for name in names)


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


# --- Whatever a library raises is one line --------------------------------------------------------------------------


def edit(file: Path, **changes) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"quantization_config": 7},
        {"model_type": "no-such-model"},
        {"model_type": "t5"},
        {"intermediate_size": 48},
        {"pad_token_id": 9999},
        {"num_attention_heads": 5},
        {"num_attention_heads": 0},
        {"hidden_size": "32"},
        {"hidden_act": "no-such-function"},
        {"dtype": "float7"},
        {"rope_parameters": {"rope_type": "no-such-rope", "rope_theta": 1.0}},
        {"rope_parameters": []},
        {"vocab_size": 0},
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(folder, change):
    edit(folder / "config.json", **change)
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", {"pre_tokenizer": {"type": "OfTomorrow"}}),
        ("tokenizer.json", {"model": {"type": "BPE"}}),
        ("tokenizer.json", {"added_tokens": 7}),
        ("tokenizer_config.json", {"eos_token": {"content": "<end>"}}),
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizerOfTomorrow", "eos_token": 7}),
        ("tokenizer_config.json", {"added_tokens_decoder": []}),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_one_line(folder, file, change):
    edit(folder / file, **change)
    assert "tokenizer of model" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_named(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 7\n")
    assert name in refusal(folder) and "git lfs pull" in refusal(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, "\x00\x01"])
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_damaged_json_is_one_line(folder, name, content):
    (folder / name).write_text(content)
    try:
        load_model(str(folder))
    except InputError as error:
        assert "\n" not in str(error) and "cannot be loaded" in str(error)


def test_shapes_that_differ_are_named_with_both(folder):
    edit(folder / "config.json", vocab_size=300)
    message = refusal(folder)
    assert "(320, 32)" in message and "(300, 32)" in message and "config.json" in message


def test_weights_that_are_not_numbers_are_the_models_fault(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(folder)
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = torch.inf
    save_file(weights, file, metadata={"format": "pt"})
    assert "gives nan for an ordinary sentence" in refusal(folder)


def test_names_of_all_kinds(folder, tmp_path, monkeypatch):
    odd = folder.rename(tmp_path / "model.gguf")
    assert load_model(str(odd)).sha256
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_model("~/model.gguf").name == "~/model.gguf"
    for name in ("", "  "):
        assert "name is" in refusal(name)
    for name in ("x" * 300, "./" + "x" * 5000, "a/" * 3000, "a\0b", "org/" + "m" * 300, "*?", "ö/ü"):
        refusal(name)


def test_a_tokenizer_whose_end_is_beyond_the_model_is_refused_and_named(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"eos_token": "<stop>"})
    tokenizer.save_pretrained(folder)
    message = refusal(folder)
    assert "'<stop>', id 320" in message and "319" in message


def test_weights_without_a_place_are_told(folder, caplog):
    edit(folder / "config.json", num_hidden_layers=1)
    load_model(str(folder))
    assert "9 weights of the checkpoint have no place" in caplog.text


def test_without_a_network_it_is_said_at_once(monkeypatch, caplog):
    import time

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    assert "cannot be loaded" in refusal("no-such-owner/no-such-model")
    assert time.monotonic() - start < 10 and "cannot be reached" in caplog.text
    assert constants.HF_HUB_OFFLINE is False


# --- Adapters -------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(tiny_folder, tmp_path, tiny_tokenizer) -> Path:
    lora_folder(tiny_folder, tmp_path / "lora", tiny_tokenizer)
    return tmp_path / "lora"


def test_an_adapter_is_merged_into_weights_that_can_be_trained(adapter):
    loaded = load_model(str(adapter))
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    loaded.model(torch.tensor([[5, 6, 7]])).logits.sum().backward()


def test_an_adapter_without_a_tokenizer_takes_that_of_its_base(adapter, tiny_tokenizer):
    for file in adapter.glob("*token*"):
        file.unlink()
    assert load_model(str(adapter)).tokenizer("He is").input_ids == tiny_tokenizer("He is").input_ids


def test_a_relative_base_is_looked_up_beside_the_adapter_too(adapter, folder, tmp_path, monkeypatch):
    whole = load_model(str(adapter)).sha256
    edit(adapter / "adapter_config.json", base_model_name_or_path="../model")
    assert load_model(str(adapter)).sha256 == whole
    monkeypatch.chdir(tmp_path)
    edit(adapter / "adapter_config.json", base_model_name_or_path="./model")
    assert load_model("lora").sha256 == whole


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (None, "names no base model"),
        ("", "names no base model"),
        (7, "names no base model"),
        (["a"], "names no base model"),
        ("../nowhere", "the base model of adapter"),
        ("no-such-owner/no-such-model", "the base model of adapter"),
        (".", "the base model of adapter"),
    ],
)
def test_a_base_that_is_not_there_is_told_as_the_adapters(adapter, base, told):
    edit(adapter / "adapter_config.json", base_model_name_or_path=base)
    assert told in refusal(adapter)


def test_an_adapter_that_names_itself_is_refused(adapter):
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(adapter))
    assert "names itself" in refusal(adapter)


def test_adapters_that_name_each_other_are_refused(adapter, tmp_path):
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(other))
    edit(other / "adapter_config.json", base_model_name_or_path=str(adapter))
    assert "the base model of adapter" in refusal(adapter)


def test_an_adapter_without_weights_or_with_a_pickle_is_refused(adapter, tmp_path):
    (adapter / "adapter_model.safetensors").unlink()
    assert "has no adapter_model*.safetensors" in refusal(adapter)

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "pickle" in refusal(adapter) and not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '"text"', "{}", "7", '{"base_model_name_or_path": 1', "[" * 100_000]
)
def test_a_malformed_adapter_config_is_one_line(adapter, content):
    (adapter / "adapter_config.json").write_text(content)
    assert "adapter" in refusal(adapter)


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "OF_TOMORROW"},
        {"peft_type": None},
        {"r": "2"},
        {"r": 3},
        {"target_modules": ["no_such_module"]},
        {"target_modules": ["q_proj"]},
        {"lora_alpha": None},
        {"rank_pattern": 7},
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(adapter, change):
    edit(adapter / "adapter_config.json", **change)
    assert "adapter" in refusal(adapter)


def test_prompt_tuning_is_refused(tiny_folder, tmp_path, tiny_tokenizer):
    peft = pytest.importorskip("peft")
    for kind in (peft.PromptTuningConfig, peft.PrefixTuningConfig):
        model = AutoModelForCausalLM.from_pretrained(tiny_folder)
        peft.get_peft_model(model, kind(task_type="CAUSAL_LM", num_virtual_tokens=4)).save_pretrained(
            tmp_path / kind.__name__
        )
        assert "virtual tokens" in refusal(tmp_path / kind.__name__)


# --- The attention kernel -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alibi", [True, False])
def test_a_loaded_model_gives_the_logits_of_a_plain_load(tmp_path, tiny_tokenizer, alibi):
    """Falcon with alibi counts it twice in its plain attention."""
    from transformers import FalconConfig

    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    old = {"new_decoder_architecture": False, "initializer_range": 0.5, "bos_token_id": 0, "eos_token_id": 0}
    config = FalconConfig(alibi=alibi, **sizes, **old)
    save_model(AutoModelForCausalLM.from_config(config), tiny_tokenizer, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(logits(load_model(str(tmp_path)).model), logits(plain), atol=1e-4)


def test_plain_attention_is_taken_where_it_is_the_same(tiny_folder, monkeypatch):
    assert load_model(str(tiny_folder)).model.config._attn_implementation == "eager"
    from isentropic.models import load

    monkeypatch.setattr(load, "same_logits", lambda *_: False)
    assert load_model(str(tiny_folder)).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "family, sizes", [("llama", {}), ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2})]
)
def test_a_model_of_a_short_context_is_loaded_and_saved_as_any_other(family, sizes, tmp_path, tiny_tokenizer):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(
        family, vocab_size=320, max_position_embeddings=6, bos_token_id=0, eos_token_id=0, **(sizes or small)
    )
    save_model(AutoModelForCausalLM.from_config(config), tiny_tokenizer, tmp_path)
    loaded = load_model(str(tmp_path))
    truth = sentence_logits(loaded.model, loaded.tokenizer)
    assert truth.shape == (1, 6, 320)
    assert saved_otherwise(tmp_path, truth, loaded.tokenizer) is None
