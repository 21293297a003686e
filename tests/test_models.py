"""What a model path may name, what is refused, and that what is saved loads with plain transformers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from isentropic.errors import InputError
from isentropic.files import cache_folder, check_room
from isentropic.models.load import load_model, looks_like_a_path, ready_tokenizer
from isentropic.models.model import context_length, vocabulary_size
from isentropic.models.save import save_model, weights_sha256

IDS = torch.tensor([[265, 304, 259, 222, 79]])
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path, model, tokenizer) -> Path:
    """A real GGUF file of a tiny Qwen2."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3, 3] + [1] * (len(tokenizer) - 2))
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    for name, parameter in model.named_parameters():
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, parameter.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny model's folder that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


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
    assert loaded.name == str(tiny_folder) and loaded.sha256 == weights_sha256(tiny_model())
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


# --- GGUF -----------------------------------------------------------------------------------------------------------


def test_a_gguf_file_is_dequantised_once(tmp_path, own_cache, tiny_model, tiny_tokenizer):
    model = tiny_model("qwen2")
    file = write_gguf(tmp_path / "tiny.gguf", model, tiny_tokenizer)
    loaded = load_model(str(file))
    assert torch.allclose(logits(loaded.model), logits(model), atol=1e-5)
    assert loaded.tokenizer("She is a nurse").input_ids == tiny_tokenizer("She is a nurse").input_ids
    (kept,) = (own_cache / "models").iterdir()
    made = (kept / "model.safetensors").stat().st_mtime_ns
    again = load_model(str(file))
    assert again.sha256 == loaded.sha256 and (kept / "model.safetensors").stat().st_mtime_ns == made
    loaded.model(IDS).logits.sum().backward()  # trainable
    assert loaded.model.get_input_embeddings().weight.grad.abs().sum() > 0
    save_model(loaded.model, loaded.tokenizer, tmp_path / "final")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "final", attn_implementation="eager")
    assert torch.equal(logits(plain), logits(loaded.model))


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.03, 0.5, 0.9999])
def test_a_truncated_gguf_is_refused_and_leaves_nothing(
    tmp_path, own_cache, tiny_model, tiny_tokenizer, share
):
    file = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"), tiny_tokenizer)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert "cut short" in refusal(file)
    assert not list(own_cache.glob("models/*"))


def test_what_is_no_gguf_is_refused(tmp_path):
    file = tmp_path / "page.gguf"
    file.write_text("<html>404</html>")
    assert "does not start with the GGUF mark" in refusal(file)
    file.write_bytes(b"")
    assert "does not start with the GGUF mark" in refusal(file)
    assert "does not exist" in refusal(tmp_path / "no.gguf")
    (tmp_path / "folder.gguf").mkdir()
    assert "does not exist" in refusal(tmp_path / "folder.gguf")


def test_a_gguf_of_an_unknown_architecture_is_refused(tmp_path, own_cache, tiny_model, tiny_tokenizer):
    file = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"), tiny_tokenizer)
    file.write_bytes(file.read_bytes().replace(b"qwen2", b"quux2"))
    assert "cannot be read" in refusal(file)
    assert not list(own_cache.glob("models/*"))


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("ISENTROPIC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "isentropic"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "isentropic"


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
    assert loaded.sha256 != weights_sha256(tiny_model())


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
    from conftest import make_folder, make_tokenizer

    assert load_model(str(make_folder(tmp_path, pad=None))).tokenizer.pad_token_id == 0
    assert ready_tokenizer(make_tokenizer(), "x", 320).pad_token_id == 1  # one that is there stays


def test_a_pad_token_outside_the_vocabulary_becomes_the_end_token(folder):
    """Padded batches go through the embedding: an id beyond it would be an IndexError in the middle of a run."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    assert tokenizer.pad_token_id == 320
    tokenizer.save_pretrained(folder)
    assert load_model(str(folder)).tokenizer.pad_token_id == 0


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
    before = weights_sha256(model)
    assert before == weights_sha256(tiny_model()) and len(before) == 64
    save_model(model, tiny_tokenizer, tmp_path)
    assert load_model(str(tmp_path)).sha256 == before
    assert load_model(str(tmp_path), dtype=torch.bfloat16).sha256 != before
    for name, parameter in model.named_parameters():  # one number of any tensor changes it, and back
        with torch.no_grad():
            kept = parameter.flatten()[-1].clone()
            parameter.view(-1)[-1] += 1e-3
            assert weights_sha256(model) != before, name
            parameter.view(-1)[-1] = kept
    assert weights_sha256(model) == before


def test_the_hash_takes_scalars_and_what_is_not_contiguous():
    module = torch.nn.Module()
    module.scale = torch.nn.Parameter(torch.tensor(2.0))
    module.turned = torch.nn.Parameter(torch.arange(6.0).view(2, 3).t())
    before = weights_sha256(module)
    module.scale.data += 1
    assert weights_sha256(module) != before


def test_context_and_vocabulary(tiny_model):
    for kind in ("llama", "gpt2", "qwen2"):
        assert context_length(tiny_model(kind)) == 256
        assert vocabulary_size(tiny_model(kind, vocab=300)) == 300
    assert context_length(SimpleNamespace(config=SimpleNamespace())) is None


def test_a_disk_without_room_is_refused(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(InputError, match="make room"):
        check_room(tmp_path, shutil.disk_usage(tmp_path).total + 1)
