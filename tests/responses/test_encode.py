"""Prompts to token ids: special tokens around a text, chat templates of all kinds, and what ends a response."""

from __future__ import annotations

import pytest
from tokenizers import processors

from isentropic.errors import InputError
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.encode import (
    chat_line,
    encode_prompts,
    encode_text,
    end_tokens,
)
from isentropic.responses.response import Sampling
from isentropic.responses.sample import ResponseSampler
from tiny import CHAT_TEMPLATE, make_tokenizer

CHAT = Sampling(chat=True)
NURSE = Prompt("He is a nurse.", "male")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_template(template, *tokens: str):
    """The tiny tokenizer with a chat template and further special tokens, of ids 320 and more."""
    made = make_tokenizer()
    made.add_special_tokens({"additional_special_tokens": list(tokens)})
    made.chat_template = template
    return made


def with_specials(pattern: str):
    """The tiny tokenizer that puts its special tokens around every text."""
    made = make_tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=pattern, special_tokens=[("<end>", 0), ("<pad>", 1)]
    )
    return made


def refusal(tokenizer, sampling=CHAT, prompt=NURSE, **limits) -> str:
    with pytest.raises(InputError) as caught:
        encode_prompts([prompt], tokenizer, sampling, **limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Special tokens around a text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "before"),
    [
        ("$A <end>", ()),
        ("$A <pad> <end>", ()),
        ("<pad> $A <end>", (1,)),
        ("<end> $A", (0,)),
        ("<pad> <end> $A <end> <end>", (1, 0)),
    ],
)
def test_what_a_tokenizer_puts_behind_a_text_is_taken_off(tiny_tokenizer, pattern, before):
    tokenizer = with_specials(pattern)
    for text in ("He is a nurse. He", "x", "He <end> is", "the end token of the user: <end>"):
        plain = tuple(tiny_tokenizer(text).input_ids)
        assert encode_text(text, tokenizer) == before + plain
        assert encode_prompts([Prompt(text, "male")], tokenizer, Sampling()) == [before + plain]


def test_a_prompt_with_a_token_that_the_model_does_not_know_is_refused_and_the_token_named():
    tokenizer = with_template(CHATML, "<new>", "<|im_start|>", "<|im_end|>")
    assert encode_prompts([NURSE], tokenizer, Sampling(), vocabulary=320)
    message = refusal(tokenizer, Sampling(), Prompt("He is <new>", "male", row=3), vocabulary=320)
    assert "prompt 3" in message and "'<new>' with id 320" in message and "319" in message
    assert "<|im_start|>" in refusal(tokenizer, vocabulary=321)
    assert encode_prompts([NURSE], tokenizer, CHAT, vocabulary=323)


# --- Templates that cannot be used ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no such role here') }}", "no such role here"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0].content | no_such_filter }}", "no_such_filter"),
        ("{{ messages[9]['content']['text'] }}", "list object has no element 9"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{% include 'other' %}", "no loader"),
        ({"tool_use": CHAT_TEMPLATE, "rag": CHAT_TEMPLATE}, "tool_use"),
        ("{% for m in messages %}{{ m.content[0].text }}{% endfor %}|", "leaves out the text"),
        ("{{ 'always the same' }}", "leaves out the text"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(template, told):
    assert told in refusal(with_template(template))


def test_a_template_without_a_system_turn_is_refused_where_one_is_asked_for():
    strict = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHATML
    )
    brief = Sampling(chat=True, system="Brief.")
    assert "System role not supported" in refusal(with_template(strict), brief)
    deaf = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    assert "--system is 'Brief.'" in refusal(with_template(deaf), brief)
    assert encode_prompts([NURSE], with_template(deaf), CHAT)


def test_one_of_several_templates_is_chosen_by_name():
    tokenizer = with_template({"one": CHAT_TEMPLATE, "two": CHATML})
    sampling = Sampling(chat=True, chat_template_kwargs='{"chat_template": "two"}')
    (ids,) = encode_prompts([NURSE], tokenizer, sampling)
    assert tokenizer.decode(ids).startswith("<|im_start|>user")
    tokenizer.chat_template |= {"default": CHAT_TEMPLATE}
    (ids,) = encode_prompts([NURSE], tokenizer, CHAT)
    assert tokenizer.decode(ids).startswith("[user]")


@pytest.mark.parametrize(
    "kwargs", ['{"tokenize": true}', '{"add_generation_prompt": false}', '{"continue_final_message": true}']
)
def test_arguments_that_the_template_call_does_not_take_are_refused(kwargs):
    refusal(with_template(CHATML), Sampling(chat=True, chat_template_kwargs=kwargs))


# --- Thinking -------------------------------------------------------------------------------------------------------

THINKING = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}",
)


def test_thinking_is_off_unless_asked_for_and_said():
    tokenizer = with_template(THINKING)
    for kwargs, off in (
        (None, True),
        ('{"enable_thinking": true}', False),
        ('{"enable_thinking": false}', True),
    ):
        sampling = Sampling(chat=True, chat_template_kwargs=kwargs)
        (ids,) = encode_prompts([NURSE], tokenizer, sampling)
        assert tokenizer.decode(ids).endswith("<think></think>") is off
        assert f'{{"enable_thinking": {str(not off).lower()}}}' in chat_line(tokenizer, sampling)
    assert "enable_thinking" not in chat_line(with_template(CHATML), CHAT)


def test_a_template_that_always_thinks_is_said():
    tokenizer = with_template(CHATML.replace("assistant\n{%", "assistant\n<think>\n{%"))
    assert "first words of thoughts" in chat_line(tokenizer, CHAT)
    assert "thoughts" not in chat_line(with_template(CHATML), CHAT)


# --- The end of a response ------------------------------------------------------------------------------------------


def test_end_tokens_are_those_of_tokenizer_and_model(tiny_model, tiny_tokenizer):
    model = tiny_model()
    for configured, expected in ((None, (0,)), (7, (0, 7)), ([7, 0, 9], (0, 7, 9))):
        model.generation_config.eos_token_id = configured
        assert end_tokens(model, tiny_tokenizer) == expected


@pytest.mark.parametrize(
    ("template", "tokens", "expected"),
    [
        (CHATML, ("<|im_start|>", "<|im_end|>"), (0, 321)),
        (
            "{% for m in messages %}[{{ m.role }}]{{ m.content }} <|eot|>{% endfor %}[assistant]",
            ("<|eot|>",),
            (0, 320),
        ),
        (
            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}",
            ("<|user|>", "<|assistant|>"),
            (0, 320),
        ),
        ("{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}\n{% endfor %}", (), (0,)),
        (CHAT_TEMPLATE, (), (0,)),
        ("{% for m in messages %}({{ m.content }})~{% endfor %}", (), (0,)),
    ],
)
def test_a_chat_response_ends_where_the_template_ends_an_answer(tiny_model, template, tokens, expected):
    tokenizer = with_template(template, *tokens)
    assert end_tokens(tiny_model(), tokenizer, CHAT) == expected
    assert end_tokens(tiny_model(), tokenizer, Sampling()) == (0,)
    assert ResponseSampler(tiny_model(), tokenizer, CHAT).ends == expected


def test_an_end_that_is_no_token_is_said(tiny_model, caplog):
    assert end_tokens(tiny_model(), with_template(CHATML), CHAT) == (0,)
    assert "puts '<|im_end|>' behind an answer" in caplog.text
    only_users = "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no answers') }}{% endif %}{{ m.content }}{% endfor %}"
    assert end_tokens(tiny_model(), with_template(only_users), CHAT) == (0,)
    assert "no answers" in caplog.text


def test_the_command_line_takes_arguments_of_the_template(tiny_folder, tiny_file, tmp_path, capsys):
    from isentropic.cli import main

    words = ["measure", str(tiny_folder), "--train_data", str(tiny_file), "--chat_template_kwargs"]
    for wrong in ("{", "[]", "7", '"text"', "enable_thinking"):
        assert main([*words, wrong]) == 2
        assert "--chat_template_kwargs is" in capsys.readouterr().err


# --- Prompts --------------------------------------------------------------------------------------------------------


def test_prompts_are_encoded_as_they_are(tiny_tokenizer):
    (ids,) = encode_prompts([Prompt("He is a nurse. He", "male")], tiny_tokenizer, Sampling())
    assert ids == tuple(tiny_tokenizer("He is a nurse. He").input_ids)


def test_a_prompt_fits_the_context_with_its_response_or_is_refused(tiny_tokenizer):
    prompt = Prompt("xyz" * 5, "male", row=17)
    (ids,) = encode_prompts([prompt], tiny_tokenizer, Sampling(max_new_tokens=4))
    length = len(ids)
    encode_prompts([prompt], tiny_tokenizer, Sampling(max_new_tokens=4), context=length + 4)
    with pytest.raises(
        InputError, match=f"prompt 17 has {length} tokens .* up to 4, .* context is {length + 3}"
    ):
        encode_prompts([prompt], tiny_tokenizer, Sampling(max_new_tokens=4), context=length + 3)


def test_a_prompt_without_a_token_is_refused(tiny_tokenizer):
    with pytest.raises(InputError, match="prompt pair-3 has no token"):
        encode_prompts([Prompt("", "male", "pair-3")], tiny_tokenizer, Sampling())


def test_the_chat_template_is_used_where_asked_for(chat_tokenizer):
    prompt = Prompt("He is a nurse.", "male")
    for system, head in ((None, ""), ("Be kind.", "[system] Be kind.\n")):
        (ids,) = encode_prompts([prompt], chat_tokenizer, Sampling(chat=True, system=system))
        assert chat_tokenizer.decode(ids) == f"{head}[user] He is a nurse.\n[assistant]"
    (plain,) = encode_prompts([prompt], chat_tokenizer, Sampling())
    assert chat_tokenizer.decode(plain) == "He is a nurse."


def test_chat_without_a_template_is_refused(tiny_tokenizer):
    with pytest.raises(InputError, match="no chat template"):
        encode_prompts([Prompt("He", "male")], tiny_tokenizer, Sampling(chat=True))
