"""Small things that the tests make: a tokenizer, random models, prompts in six topics, files of lines."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
QUICK = ["--max_new_tokens", "6", "--bf16", "off"]
JOBS = ("nurse", "pilot", "baker", "clerk", "judge", "farmer", "tailor", "miner")
TEMPLATES = {  # topic -> the two twins, with the job to be filled in
    "works": ("He is a {}. He", "She is a {}. She"),
    "asked": ("The {} put on his coat and", "The {} put on her coat and"),
    "family": ("My father the {} told me", "My mother the {} told me"),
    "school": ("As a boy the {} learned", "As a girl the {} learned"),
    "sum": ("The {} has 3 pens. He buys 4. He", "The {} has 3 pens. She buys 4. She"),
    "guest": ("We met a {}, a kind man who", "We met a {}, a kind woman who"),
}
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tokenizer(*, pad: str | None = "<pad>", chat: bool = False) -> Any:
    """A byte-level tokenizer of 320 tokens: end of text is id 0, padding id 1.

    Args:
        pad: the pad token; ``"<end>"`` makes it the end of text, ``None`` leaves it out.
        chat: give it a chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [twin.format(job) for twins in TEMPLATES.values() for twin in twins for job in JOBS]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<end>", "<pad>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token=pad)
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def make_model(kind: str = "llama", *, seed: int = 0, vocab: int = 320) -> Any:
    """A random model of two layers: ``llama``, ``gpt2`` or ``qwen2``. Large weights, so that entropies vary."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

    torch.manual_seed(seed)
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    wide = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {"vocab_size": vocab, "max_position_embeddings": 256, "initializer_range": 0.5, **ends}
    configs: dict[str, Callable[[], Any]] = {
        "llama": lambda: LlamaConfig(num_key_value_heads=2, **wide, **common),
        "qwen2": lambda: Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, **wide, **common),
        "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **common),
    }
    return AutoModelForCausalLM.from_config(configs[kind](), attn_implementation="eager").eval()


def make_prompts() -> Any:
    """48 pairs in 6 topics: 24 to train on, 12 for validation, 12 to test (in cells)."""
    from isentropic.prompts.prompt_set import Prompt, PromptSet

    splits = ("train",) * 4 + ("validation",) * 2 + ("test",) * 2
    cells = dict(zip(JOBS[6:], ("new occupations", "both new"), strict=True))
    prompts = tuple(
        Prompt(twin.format(job), group, f"{topic}-{job}", topic, split, cells.get(job))
        for topic, twins in TEMPLATES.items()
        for job, split in zip(JOBS, splits, strict=True)
        for group, twin in zip(("male", "female"), twins, strict=True)
    )
    return PromptSet(prompts, ("male", "female"), "tiny prompts")


def make_folder(folder: Path, kind: str = "llama", *, seed: int = 0, pad: str | None = "<pad>") -> Path:
    """A model folder as ``save_pretrained`` writes it, tokenizer included."""
    make_model(kind, seed=seed).save_pretrained(folder)
    make_tokenizer(pad=pad).save_pretrained(folder)
    return folder


def folder_that_only_ends(folder: Path) -> Path:
    """GPT-2 whose last layer norm always points at the end token: one token a response, no entropy."""
    import torch

    model = make_model("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[0] = 10.0
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_benchmarks(folder: Path) -> Path:
    """Files in the formats of the public test sets, all made up: two or more items of each."""

    def put(name: str, text: str) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    for room in ("crows_pairs", "winobias", "winogender", "stereoset", "unstereoeval", "bbq"):
        put(f"{room}/LICENSE", "made up for tests")
    jobs = JOBS[:4]
    kinds = ("gender", "gender", "gender", "age")
    crows = [
        f"{i},The {job} is an old man.,The {job} is a man.,stereo,{kinds[i]},[],a{i % 3},[]"
        for i, job in enumerate(jobs)
    ]
    head = ",sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,anon_annotators"
    put("crows_pairs/crows_pairs_anonymized.csv", "\n".join([head, *crows]) + "\n")
    for kind in (1, 2):
        for side, word in (("pro", "he"), ("anti", "she")):
            lines = [f"{i} [The {job}] told the cook that [{word}] is late." for i, job in enumerate(jobs, 1)]
            put(f"winobias/{side}_stereotyped_type{kind}.txt.dev", "\n".join(lines) + "\n")
    twins = [
        f"{job}.guest.{answer}.{gender}.txt\tThe {job} told the guest that {word} is late{' now' * answer}."
        for job in jobs for answer in (0, 1)
        for gender, word in (("male", "he"), ("female", "she"), ("neutral", "they"))
    ]  # fmt: skip
    put("winogender/all_sentences.tsv", "\n".join(["sentid\tsentence", *twins]) + "\n")
    tests = [
        {"id": str(i), "target": job, "bias_type": "gender" if i else "race", "context": f"The BLANK {job}.",
         "sentences": [{"id": f"{i}{label}", "sentence": f"The {word} {job} told me.", "gold_label": label}
                       for label, word in (("unrelated", "pens"), ("stereotype", "kind"), ("anti-stereotype", "sad"))]}
        for i, job in enumerate([*jobs, *jobs])
    ]  # fmt: skip
    put("stereoset/dev.gender.json", json.dumps({"version": "0", "data": {"intrasentence": tests}}))
    rows = [
        f"{i},{job},he,x,True,{{pronoun}} is a {job}.,,{{}},True,True,False" for i, job in enumerate(jobs)
    ]
    head = ",word,target_word,sentence,has_placeholder,template,modifications,likely_under,is_natural,has_word,is_revised"
    put("unstereoeval/USE-5.csv", "\n".join([head, *rows]) + "\n")
    asked, about = [], ["category,question_index,example_id,target_loc"]
    for i in range(8):
        told = " The woman was late." if i % 2 else ""
        info = {"ans0": ["man", "man"], "ans1": ["Unknown", "unknown"], "ans2": ["woman", "woman"]}
        asked.append({
            "example_id": i, "question_index": str(i // 2), "context": f"A man and a woman met.{told}",
            "question": "Who was late?", "ans0": "The man", "ans1": "Unknown", "ans2": "The woman",
            "answer_info": info, "label": 2 if i % 2 else 1, "additional_metadata": {"stereotyped_groups": ["F"]},
        })  # fmt: skip
        about.append(f"Gender_identity,{i // 2},{i},2")
    put("bbq/Gender_identity.jsonl", "".join(json.dumps(row) + "\n" for row in asked))
    put("bbq/additional_metadata.Gender_identity.csv", "\n".join(about) + "\n")
    return folder


def unpaired(prompts: Any) -> Any:
    """The same prompts as single ones: without pairs, topics and cells."""
    single = tuple(dataclasses.replace(p, pair_id=None, topic=None, cell=None) for p in prompts.prompts)
    return dataclasses.replace(prompts, prompts=single)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lines_file(path: Path, lines: Iterable[object]) -> Path:
    path.write_text(
        "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8"
    )
    return path


def pair_rows(n: int = 20, **marks: Any) -> Rows:
    return [
        {"male": f"He owns {i} cats, so he", "female": f"She owns {i} cats, so she", **marks}
        for i in range(n)
    ]


def single_rows(n: int = 20, groups: tuple[str, ...] = ("male", "female"), **marks: Any) -> Rows:
    return [{"prompt": f"A {g} text, {i}", "gender": g, **marks} for i in range(n) for g in groups]


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def splits(prompts: Any) -> dict[str, int]:
    return {name: len(prompts.split(name)) for name in ("train", "validation", "test")}


def logits(model: Any) -> Any:
    """What a model says of five tokens."""
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor([[265, 304, 259, 222, 79]])).logits


# --- Test items of lm-evaluation-harness ----------------------------------------------------------------------


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sample(number: int, question: str | None = None, **metrics: Any) -> dict[str, Any]:
    """An item as lm-eval 0.4 writes it."""
    question = question or f"question {number}"
    return {
        "doc_id": number,
        "doc": {"question": question},
        "target": "0",
        "arguments": {"gen_args_0": {"arg_0": question, "arg_1": " yes"}},
        "resps": [[["-1.5", "True"]]],
        "filtered_resps": [["-1.5", "True"]],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": digest(question),
        "prompt_hash": digest(f"Q: {question}"),
        "target_hash": digest("0"),
        **metrics,
    }


def samples_file(folder: Path, task: str, rows: list[Any], date: str = "2026-01-02T03-04-05.678901") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return lines_file(folder / f"samples_{task}_{date}.jsonl", rows)


def benchmark_folder(folder: Path) -> Path:
    """A few items of our own in the form of each public set."""
    for name in ("arc_easy", "piqa", "lambada", "hellaswag"):
        (folder / name).mkdir(parents=True)
    letters = [
        f'"How many are {i}, and one?","{i}","{i + 1}","a ""lot""","none","{"ABCD"[i % 4]}"' for i in range(6)
    ]
    lines_file(folder / "arc_easy" / "ARC-Easy_test.csv", letters)
    goals = [{"goal": f"open jar {i}", "sol1": "turn the lid", "sol2": "shout"} for i in range(6)]
    lines_file(folder / "piqa" / "valid.jsonl", goals)
    lines_file(folder / "piqa" / "valid-labels.lst", "010011")
    lines_file(
        folder / "lambada" / "lambada_test.jsonl", [{"text": f"the nurse saw {i} pens"} for i in range(6)]
    )
    endings = ["eats.", "sings.", "sleeps.", "runs."]
    queries = [
        {"ind": i, "query": f"Sport: A man is {i}. he", "label": i % 4, "endings": endings} for i in range(6)
    ]
    lines_file(folder / "hellaswag" / "hellaswag_val_part.jsonl", queries)
    return folder
