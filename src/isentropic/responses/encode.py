"""Prompts to token ids: as plain text, or through the tokenizer's chat template; and what ends a response."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from isentropic.errors import InputError
from isentropic.models.reading import reading
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.response import Sampling, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("isentropic")
QUESTION, ANSWER = "How many legs has a dog?", "A dog has four."
"""A turn of a chat, to see what a template puts behind an answer."""


# --- Prompts ------------------------------------------------------------------------------------------------


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    context: int | None = None,
    vocabulary: int | None = None,
) -> list[Tokens]:
    """Token ids of each prompt, through the chat template where ``sampling.chat`` is on.

    Args:
        context: the most positions the model can take; no limit where left out.
        vocabulary: how many token ids the model knows; not looked at where left out.

    Raises:
        InputError: a prompt with its response is longer than the model's context, has no token at all, or
            holds a token that the model does not know; or the chat template cannot be used.
    """
    if sampling.chat:
        check_template(tokenizer, sampling)
    encoded = []
    for prompt in prompts:
        where = f"prompt {prompt.row or prompt.pair_id or repr(prompt.text[:40])}"
        ids = encode_prompt(prompt.text, tokenizer, sampling)
        if not ids:
            raise InputError(f"{where} has no token; a response needs something to follow; leave it out")
        if context is not None and len(ids) + sampling.max_new_tokens > context:
            raise InputError(
                f"{where} has {len(ids)} tokens and its response up to {sampling.max_new_tokens}, but the "
                f"model's context is {context}; the model cannot read all of it; shorten it or lower "
                "--max_new_tokens"
            )
        if vocabulary is not None:
            check_vocabulary(ids, tokenizer, vocabulary, where)
        encoded.append(ids)
    return encoded


def encode_prompt(
    text: str, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, response: str = ""
) -> Tokens:
    """Token ids of one prompt, with a response behind it where one is given."""
    if not sampling.chat:
        return encode_text(text + response, tokenizer)
    rendered = render(tokenizer, sampling, [("user", text)])
    return tuple(tokenizer(rendered + response, add_special_tokens=False).input_ids)


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Token ids of a text that continues: what a tokenizer adds before it is kept,
    what it adds after it is removed.

    Tokenizers of embedding models and some fine-tuned ones end every text with their end token, and nothing
    sensible follows an end.
    """
    whole = tokenizer(text, verbose=False).input_ids
    plain = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[: start + len(plain)])
    special = set(tokenizer.all_special_ids)
    while whole and whole[-1] in special:
        whole.pop()
    return tuple(whole)


def check_vocabulary(
    ids: Iterable[int], tokenizer: PreTrainedTokenizerBase, vocabulary: int, where: str
) -> None:
    """Refuse a token that the tokenizer knows and the model does not."""
    for token in ids:
        if not 0 <= token < vocabulary:
            raise InputError(
                f"{where} holds the token {tokenizer.convert_ids_to_tokens(token)!r} with id {token}, and "
                f"the model's ids end at {vocabulary - 1}; the tokenizer has more tokens than the model; "
                "give the tokenizer that belongs to it"
            )


# --- Chat ---------------------------------------------------------------------------------------------------


def follows_chat(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts are questions to a chat model: it has a template, and most of them end as sentences do.

    What breaks off, as all built-in prompts do, is there to be continued.
    """
    whole = sum(
        prompt.text.rstrip("\"')”’»").endswith((".", "?", "!", "。", "？", "！")) for prompt in prompts
    )
    return bool(getattr(tokenizer, "chat_template", None)) and 2 * whole > len(prompts)


def chat_line(tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> str:
    """The line about it on the screen."""
    if not sampling.chat:
        return "prompts are continued as plain text (--chat puts them through the chat template)"
    line = "prompts go through the chat template (--no-chat gives them as plain text)"
    check_template(tokenizer, sampling)
    arguments = template_arguments(tokenizer, sampling)
    if arguments:
        line += f" with {json.dumps(arguments, ensure_ascii=False)}"
        if not sampling.chat_template_kwargs:
            line += " (--chat_template_kwargs changes that)"
    if render(tokenizer, sampling, [("user", QUESTION)]).rstrip().endswith("<think>"):
        line += "; the template opens a <think> block, so responses are the first words of thoughts"
    return line


def check_template(tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> None:
    """Refuse a template that is not there, that fails, or that leaves out what it is given."""
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "chat is on but the tokenizer has no chat template; the model would see plain text; give "
            "--no-chat"
        )
    rendered = render(tokenizer, sampling, [("user", QUESTION)])
    if QUESTION not in rendered and rendered == render(tokenizer, sampling, [("user", ANSWER)]):
        raise InputError(
            "the tokenizer's chat template leaves out the text of the prompt; every prompt would be the same "
            "to the model; give a template that takes plain text, or --no-chat"
        )
    if sampling.system and rendered == render(tokenizer, sampling, [("user", QUESTION)], system=None):
        raise InputError(
            f"--system is {sampling.system!r} and the tokenizer's chat template leaves it out; the model "
            "would not see it; leave --system out"
        )


def template_arguments(tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> dict[str, Any]:
    """Options of the chat template besides the messages. If it knows a thinking mode,
    that is off unless asked for: the first tokens of a thought are boilerplate.
    """
    given: dict[str, Any] = json.loads(sampling.chat_template_kwargs or "{}")
    with reading_template():
        template = tokenizer.get_chat_template(given.get("chat_template"))
    return {"enable_thinking": False, **given} if "enable_thinking" in template else given


def render(
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    turns: Sequence[tuple[str, str]],
    system: str | None = "",
) -> str:
    """The text of a chat. If the last turn is the user's, the beginning of an answer follows it.

    A template is a program that came with the model. transformers runs it in a sandbox, but nothing bounds
    its time.
    """
    system = sampling.system if system == "" else system
    messages = [{"role": role, "content": text} for role, text in turns]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    arguments = template_arguments(tokenizer, sampling)
    asks = turns[-1][0] == "user"
    with reading_template():
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks, **arguments)
        )


def reading_template() -> Any:
    return reading(
        "the tokenizer's chat template cannot be used",
        "change --system or --chat_template_kwargs, give --no-chat, or correct the template",
    )


# --- The end of a response ----------------------------------------------------------------------------------


def end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sampling: Sampling | None = None
) -> Tokens:
    """The tokens that end a response: the tokenizer's end-of-text, those the model's own settings name,
    and in a chat the one that the template puts behind an answer.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    turn = end_of_turn(tokenizer, sampling) if sampling is not None and sampling.chat else None
    return tuple(
        dict.fromkeys(int(token) for token in [tokenizer.eos_token_id, *listed, turn] if token is not None)
    )


def end_of_turn(tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> int | None:
    """The token that a chat template puts behind an answer; None where it puts none."""
    turns = [("user", QUESTION), ("assistant", ANSWER)]
    try:
        behind = render(tokenizer, sampling, turns).rpartition(ANSWER)[2].strip()
        if not behind:  # some templates end an answer with the beginning of the next turn
            whole = render(tokenizer, sampling, [*turns, ("user", QUESTION)])
            behind = whole.rpartition(ANSWER)[2].partition(QUESTION)[0].strip()
    except InputError as error:
        log.warning("a response ends at the end of text alone: %s", error)
        return None
    if not behind:
        return None
    vocabulary = tokenizer.get_vocab()
    first = tokenizer(behind, add_special_tokens=False).input_ids[0]
    if first in {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}:
        return int(first)
    if behind in vocabulary:
        return int(vocabulary[behind])
    log.warning(
        "the chat template puts %r behind an answer, which is not a single token: a response ends at the end "
        "of text alone",
        behind[:40],
    )
    return None
