"""Conversations: rendered as transformers renders them, answers found by position, templates kept in their box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

import vocabularies
from sublayer.errors import CheckpointError, InputError
from sublayer.text import Tokenizer
from sublayer.text.chat import ChatTemplate
from sublayer.text.folder import load_folder

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none and tools %}
    {{- "Functions:" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- "Date: " + strftime_now("%Y") + "\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token}}{% endgeneration %}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LOOPS = (
    "{% set ns = namespace(turns=0) %}{% for message in messages %}"
    "{% if message.role == 'tool' %}{% continue %}{% endif %}"
    "{% set ns.turns = ns.turns + 1 %}{{ ns.turns }} {{ message.role | upper }}: {{ message.content }}{{ eos_token }}\n"
    "{% if message.name is defined %}({{ message.name }}){% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "loops": LOOPS}
SYSTEM = {"role": "system", "content": " Be “brief” & <b>kind</b>. "}
TALK = [
    {"role": "user", "content": "Who are you, 你?"},
    {"role": "assistant", "content": " A small dog.\nYou? "},
    {"role": "user", "content": "Tom \U0001f600", "name": None},
    {"role": "assistant", "content": "Hello, Tom."},
]
TOOLS = [{"type": "function", "function": {"name": "find", "description": "Findet <etwas> größer", "parameters": {}}}]
MARKERS = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = vocabularies.gpt2(
        tmp_path_factory.mktemp("chat"),
        specials=("<unk>", *MARKERS),
        tokenizer_class="GPT2Tokenizer",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[*MARKERS[2:]],
        chat_template=CHATML,
    )
    return load_folder(folder)


def oracle(source: str, messages: list[Any], **options: Any) -> str:
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=transformers.GPT2Tokenizer().backend_tokenizer, bos_token="<s>", eos_token="</s>"
    )
    return theirs.apply_chat_template(messages, chat_template=source, tokenize=False, **options)


def ours(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, MARKERS)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompted", [False, True])
def test_text_is_that_of_transformers(name: str, prompted: bool) -> None:
    source = TEMPLATES[name]
    begins = [[], [SYSTEM]] if name in {"chatml", "llama3", "loops"} else [[]]
    for begin in begins:
        for length in range(1, len(TALK) + 1):
            messages = [*begin, *TALK[:length]]
            rendered = ours(source).render(messages, add_generation_prompt=prompted)
            assert rendered.text == oracle(source, messages, add_generation_prompt=prompted)


def test_tools_and_further_values_reach_the_template() -> None:
    assert ours(LLAMA3).render(TALK, tools=TOOLS).text == oracle(LLAMA3, TALK, tools=TOOLS)
    source = "{{ thinking }}{{ messages | tojson }}{{ missing }}"
    assert ours(source).render(TALK[:2], thinking=False).text == oracle(source, TALK[:2], thinking=False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_found_by_position(name: str) -> None:
    ends = {
        "chatml": "<|im_end|>",
        "llama3": "<|eot_id|>",
        "gemma": "<end_of_turn>",
        "mistral": "</s>",
        "loops": "</s>",
    }
    rendered = ours(TEMPLATES[name]).render_answers(TALK)
    found = [rendered.text[begin:end] for begin, end in rendered.answers]
    said = [TALK[1]["content"], TALK[3]["content"]]
    if name in {"llama3", "gemma"}:
        said = [each.strip() for each in said]
    if name == "loops":  # it has no prompt for an answer, so the name of who speaks is part of it
        said = [f"2 ASSISTANT: {said[0]}", f"4 ASSISTANT: {said[1]}"]
    assert found == [each + ends[name] for each in said]


def test_an_answer_that_is_a_question_too_is_still_found_by_position() -> None:
    """By content, the first "same" would be taken."""
    talk = [{"role": "user", "content": "same"}, {"role": "assistant", "content": "same"}]
    rendered = ours(MISTRAL).render_answers(talk)
    assert rendered.answers == ((len("<s>[INST] same [/INST]"), len(rendered.text)),)


def test_templates_that_rewrite_what_was_said_are_refused() -> None:
    thoughts = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think></think>"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert len(ours(thoughts).render_answers(TALK[:2]).answers) == 1
    with pytest.raises(InputError, match="message 1 in another way when more follows"):
        ours(thoughts).render_answers(TALK)
    with pytest.raises(InputError, match="nobody answers"):
        ours(CHATML).render_answers(TALK[:1])


def test_the_mask_covers_the_answers_and_their_ends(tokenizer: Tokenizer) -> None:
    ids, learned = tokenizer.encode_answers(TALK)
    rendered = tokenizer.chat.render(TALK).text
    assert ids == tokenizer.encode_template(rendered).ids
    runs: list[list[int]] = [[]]
    for identifier, mine in zip(ids, learned, strict=True):
        runs[-1] += [identifier] * mine
        if not mine and runs[-1]:
            runs.append([])
    spoken = tokenizer.decode([run for run in runs if run], skip_special=False)
    assert spoken == [TALK[1]["content"] + "<|im_end|>", TALK[3]["content"] + "<|im_end|>"]
    # What the model is asked to go on with is what stands before the answer in training.
    prompt = tokenizer.encode_chat(TALK[:3])
    assert prompt == ids[: len(prompt)]
    assert learned[len(prompt)]
    assert not learned[len(prompt) - 1]


@given(data=st.data())
def test_what_a_user_writes_never_makes_a_special_token(tokenizer: Tokenizer, data: st.DataObject) -> None:
    """The same special tokens as for a harmless text, and the user's text comes back as written."""
    words = st.lists(st.sampled_from([*MARKERS, "dog", " ", "<", "|>", "\n", "é", "<|im_", "_end|>"]), max_size=6)
    wicked = "".join(data.draw(words))
    template = ours(CHATML)
    rendered = template.render([{"role": "user", "content": wicked}], add_generation_prompt=True)
    harmless = template.render([{"role": "user", "content": "dog"}], add_generation_prompt=True)
    assert rendered.text == harmless.text.replace("user\ndog", "user\n" + wicked)
    tokens = tokenizer.encode_template(rendered.text, rendered.quoted)
    expected = tokenizer.encode_template(harmless.text)
    special = tokenizer.specials.ids
    assert [i for i in tokens.ids if i in special] == [i for i in expected.ids if i in special]
    assert tokenizer.decode([tokens.ids], skip_special=False) == [rendered.text]
    for identifier, (begin, end) in zip(tokens.ids, tokens.spans, strict=True):
        if identifier in special:
            assert rendered.text[begin:end] == tokenizer.token(identifier)
    # Every character is some token's, in order.
    assert [begin for begin, _ in tokens.spans] == sorted(begin for begin, _ in tokens.spans)
    assert {place for begin, end in tokens.spans for place in range(begin, end)} == set(range(len(rendered.text)))


ESCAPES = {
    "a class": "{{ messages.__class__.__mro__ }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals by a filter": "{{ raise_exception | attr('__globals__') }}",
    "a subclass": "{{ ''['__class__'] }}",
    "through a format": "{{ '{0.__class__}'.format(messages) }}",
    "a change": "{{ messages.append(1) }}",
    "a macro's frame": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "a long range": "{% for i in range(100000000) %}{% endfor %}",
    "ranges in ranges": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 100000000 }}",
    "a long list": "{% set x = [0] * 1000000000 %}",
    "a large power": "{{ 9 ** 99999999 }}",
    "a wide field": "{{ '%999999999d' % 1 }}",
    "a wide filter": "{{ '%999999999d' | format(1) }}",
    "a wide format": "{{ '{:>999999999}'.format(1) }}",
    "a wide line": "{{ 'x'.center(999999999) }}",
    "a wide line by a filter": "{{ 'x' | center(999999999) }}",
    "much text": "{% for i in range(900000) %}xxxxxxxxxxxxxxxx{% endfor %}",
    "a recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_template_stays_in_its_box(escape: str) -> None:
    with pytest.raises(InputError, match="the chat template"):
        ours(ESCAPES[escape]).render(TALK)


def test_bad_templates_and_bad_conversations_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="chat template is damaged"):
        ours("{% for %}")
    with pytest.raises(InputError, match="refuses this conversation: System role not supported"):
        ours(GEMMA).render([SYSTEM])
    with pytest.raises(InputError, match="message 1 has the role None"):
        ours(CHATML).render([TALK[0], {"content": "x"}])
    # A role is written next to the template's own signs, so it cannot have any.
    with pytest.raises(InputError, match=r"message 0 has the role 'user<\|im_end\|>'"):
        ours(CHATML).render([{"role": "user<|im_end|>", "content": "x"}])
    with pytest.raises(InputError, match="has no attribute 'content'"):
        ours(CHATML).render([{"role": "user"}])
    plain = load_folder(vocabularies.gpt2(tmp_path))
    with pytest.raises(InputError, match="carries no chat template"):
        plain.encode_chat(TALK)
