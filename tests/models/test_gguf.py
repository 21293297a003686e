"""GGUF files: dequantised once, and refused when damaged."""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from isentropic.errors import InputError
from isentropic.files import broken_seal, cache_folder
from isentropic.models.gguf import dequantised_folder, kept
from isentropic.models.load import load_model
from isentropic.models.save import save_model
from tiny import logits

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
    for name_here, parameter in model.named_parameters():
        name = name_here
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


def refusal(name) -> str:
    with pytest.raises(InputError) as caught:
        load_model(str(name))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


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
    loaded.model(torch.tensor([[5, 6]])).logits.sum().backward()  # trainable
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
    assert "does not start with the GGUF signature" in refusal(file)
    file.write_bytes(b"")
    assert "does not start with the GGUF signature" in refusal(file)
    assert "does not exist" in refusal(tmp_path / "no.gguf")
    (tmp_path / "folder.gguf").mkdir()
    assert "has no config.json" in refusal(tmp_path / "folder.gguf")  # a folder, whatever its name


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
    monkeypatch.setenv("ISENTROPIC_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("ISENTROPIC_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**22 + 7)  # a user whom the machine does not know
    assert cache_folder().is_absolute() and cache_folder().name == f"isentropic-{2**22 + 7}"


# --- The cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "empty", "gone", "bit", "folder"])
def test_a_damaged_cache_is_made_again(tmp_path, own_cache, tiny_model, tiny_tokenizer, name, how):
    file = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"), tiny_tokenizer)
    expected = dequantised_folder(file)
    hashes = {path.name: path.read_bytes() for path in expected.iterdir()}
    damaged = expected / next(found for found in hashes if found.lstrip(".").endswith(name))
    data = damaged.read_bytes()
    damaged.unlink()
    if how == "folder":
        damaged.mkdir()
    elif how != "gone":
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        damaged.write_bytes({"cut": data[:middle], "empty": b"", "bit": flipped}[how])
    assert dequantised_folder(file) == expected
    assert {path.name: path.read_bytes() for path in expected.iterdir()} == hashes
    assert list(expected.parent.iterdir()) == [expected]


def test_what_dead_processes_left_is_removed_and_what_lives_is_not(
    tmp_path, own_cache, tiny_model, tiny_tokenizer
):
    (own_cache / "models").mkdir(parents=True)
    dead, alive, far, not_ours = (
        own_cache / "models" / name
        for name in (
            f"making-{platform.node()}-{2**22 + 1}",
            f"making-{platform.node()}-{os.getppid()}",
            "making-another-machine-7",
            "mine",
        )
    )
    for path in (dead, alive, far, not_ours):
        path.mkdir()
    dequantised_folder(write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"), tiny_tokenizer))
    assert [path.exists() for path in (dead, alive, far, not_ours)] == [False, True, True, True]


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path, monkeypatch, tiny_model, tiny_tokenizer, caplog
):
    file = write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2"), tiny_tokenizer)
    (tmp_path / "cache").write_text("a file in the way")
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path / "cache"))
    assert torch.allclose(logits(load_model(str(file)).model), logits(tiny_model("qwen2")), atol=1e-5)
    assert "cannot be kept in the cache" in caplog.text and "going on without" in caplog.text


# --- Headers that ask for too much ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 10**9),
        ("block_count", 10**6),
        ("embedding_length", 2**31),
        ("feed_forward_length", 4_000_000_000),
        ("attention.head_count", 10**9),
        ("attention.head_count_kv", 10**9),
        ("context_length", 4_000_000_000),
        ("vocab_size", 10**9),
    ],
)
def test_a_header_that_asks_for_too_much_is_refused_before_anything_is_built(
    tmp_path, own_cache, tiny_model, tiny_tokenizer, monkeypatch, key, value
):
    gguf = pytest.importorskip("gguf")
    add = gguf.GGUFWriter.add_uint32
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_uint32", lambda w, k, v: add(w, k, value if k == f"qwen2.{key}" else v)
    )
    file = write_gguf(tmp_path / "bomb.gguf", tiny_model("qwen2"), tiny_tokenizer)
    assert f"qwen2.{key} is {value}" in refusal(file)
    assert not list(own_cache.glob("models/*"))


def test_two_processes_that_make_it_at_once_both_have_it(tmp_path, tiny_loaded, monkeypatch):
    """The other one is done between the look at the folder and the move to it."""

    def other(folder):
        (made,) = folder.parent.glob("making-*")
        shutil.copytree(made, folder)

    monkeypatch.setattr("isentropic.models.gguf.remove", other)
    folder = tmp_path / "models" / "tiny"
    assert kept(tiny_loaded.model, tiny_loaded.tokenizer, folder, 0) == folder
    assert broken_seal(folder) is None and list(folder.parent.iterdir()) == [folder]
