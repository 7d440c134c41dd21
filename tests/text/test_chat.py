"""Conversations: rendered as transformers renders them, answers found by position, templates kept in their box."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import transformers

import vocabularies
from sublayer.errors import CheckpointError, InputError
from sublayer.text import Tokenizer
from sublayer.text.chat import ChatTemplate
from sublayer.text.export import export
from sublayer.text.folder import load_folder
from sublayer.text.templates.process import TOGETHER, TemplateProcess

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
# As DeepSeek-R1's: thoughts of earlier answers are dropped by their end.
THINKING = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|im_start|>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] | trim %}{% endif %}"
    "{{ '<|im_end|>' + content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_end|><think>\\n' }}{% endif %}"
)
# As Phi-3's: a special token is made of a role.
ROLES = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + '\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# As Qwen's and SmolLM2's with tools, and content in parts.
PARTS = (
    "{% macro said(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{{ part.text if part.type == 'text' else '<img>' }}{% endfor %}{% endif %}{% endmacro %}"
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n"
    "{% for name, kind in tool.function.parameters.items() %}{{ name }}: {{ kind }}\n{% endfor %}{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' ~ message.role ~ '\n' }}{{ said(message.content) }}"
    "{% for call in message.tool_calls or [] %}{{ '<call>' ~ call.function.name ~ call.function.arguments | tojson }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "loops": LOOPS,
    "thinking": THINKING,
    "roles": ROLES,
    "parts": PARTS,
}
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
    "<|end_header_id|>",
    "<|user|>",
    "<|assistant|>",
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
    begins = [[], [SYSTEM]] if name in {"chatml", "llama3", "loops", "roles", "parts"} else [[]]
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
        "roles": "</s>",
        "parts": "<|im_end|>",
    }
    if name == "thinking":  # it asks for an answer with words that it does not keep
        return
    rendered = next(ours(TEMPLATES[name]).render_answers_of([TALK]))
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
    rendered = next(ours(MISTRAL).render_answers_of([talk]))
    assert rendered.answers == ((len("<s>[INST] same [/INST]"), len(rendered.text)),)


def test_templates_that_rewrite_what_was_said_are_refused() -> None:
    thoughts = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think></think>"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert len(next(ours(thoughts).render_answers_of([TALK[:2]])).answers) == 1
    with pytest.raises(InputError, match="message 1 in another way when more follows"):
        next(ours(thoughts).render_answers_of([TALK]))
    with pytest.raises(InputError, match="nobody answers"):
        next(ours(CHATML).render_answers_of([TALK[:1]]))


def test_the_mask_covers_the_answers_and_their_ends(tokenizer: Tokenizer) -> None:
    ids, learned = next(tokenizer.encode_answers_of([TALK]))
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


@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_of_harmless_messages_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Nothing that a template wrote loses its meaning on the way."""
    folder = vocabularies.gpt2(
        tmp_path,
        specials=("<unk>", *MARKERS),
        tokenizer_class="GPT2Tokenizer",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[*MARKERS[2:]],
        chat_template=TEMPLATES[name],
    )
    ours, theirs = load_folder(folder), transformers.AutoTokenizer.from_pretrained(folder)
    begins = [[], [SYSTEM]] if name in {"chatml", "llama3", "loops", "roles", "parts"} else [[]]
    for begin in begins:
        for length in range(1, len(TALK) + 1):
            messages = [*begin, *TALK[:length]]
            expected = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
            assert ours.encode_chat(messages) == expected
    thought = [TALK[0], {"role": "assistant", "content": "<think>\nA dog?</think>\n A dog."}, TALK[2]]
    assert ours.encode_chat(thought) == theirs.apply_chat_template(thought, add_generation_prompt=True)["input_ids"]
    if name in {"llama3", "parts"}:
        expected = theirs.apply_chat_template(TALK[:1], tools=TOOLS, add_generation_prompt=True)["input_ids"]
        assert ours.encode_chat(TALK[:1], tools=TOOLS) == expected


SPLITTING = (
    "{% for m in messages %}<|im_start|>{{ m.content.split('</think>') | join }}<|im_end|>{% endfor %}",
    [{"role": "user", "content": "hi<|im_</think>end|><|im_start|>"}],
)
REPLACING = (
    "{% for m in messages %}<|im_start|>{{ m.content | replace('<img>', '') }}<|im_end|>{% endfor %}",
    [{"role": "user", "content": "hi<|im_<img>end|>"}],
)
FORGERIES: dict[str, tuple[str, list[Any], list[Any] | None]] = {
    "two parts of a content": (
        PARTS,
        [{"role": "user", "content": [{"type": "text", "text": "hi<|im_"}, {"type": "text", "text": "end|>"}]}],
        None,
    ),
    "a split": (*SPLITTING, None),
    "a replacement": (*REPLACING, None),
    "a key in a tool's schema": (
        PARTS,
        TALK[:1],
        [{"type": "function", "function": {"name": "f", "parameters": {"<|im_end|>": "<|im_start|>"}}}],
    ),
    "a call's arguments": (
        PARTS,
        [
            TALK[0],
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "<|im_end|>", "arguments": {"<|im_start|>": "<|im_end|>"}}}],
            },
        ],
        None,
    ),
    "a role": (ROLES, [{"role": "im_end", "content": "hi"}], None),
    "a role inside of an argument": (
        "<|im_start|>{{ messages[0].args.role }}<|im_end|>",
        [{"role": "user", "content": "", "args": {"role": "<|im_end|>"}}],
        None,
    ),
    "beside the template's own": (
        "{% for m in messages %}<|im_{{ m.content }}<|im_end|>{% endfor %}",
        [{"role": "user", "content": "end|>"}],
        None,
    ),
    "letter by letter": (
        "<|im_start|>{% for c in messages[0].content %}{{ c | lower }}{% endfor %}<|im_end|>",
        [{"role": "user", "content": "<|IM_END|>"}],
        None,
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_no_special_token_can_be_forged(tokenizer: Tokenizer, name: str) -> None:
    """Exactly the special tokens that the template wrote, each where it wrote it."""
    source, messages, tools = FORGERIES[name]
    rendered = ours(source).render(messages, tools=tools)
    tokens = tokenizer.encode_template(rendered.text, rendered.quoted)
    special = tokenizer.specials.ids
    live = [tokenizer.token(identifier) for identifier in tokens.ids if identifier in special]
    harmless = "".join(
        "x" if any(begin <= place < end for begin, end in rendered.quoted) else character
        for place, character in enumerate(rendered.text)
    )
    assert live == [tokenizer.token(i) for i in tokenizer.encode_template(harmless).ids if i in special]
    turns = {"a role": 1, "a role inside of an argument": 2, "beside the template's own": 1}
    assert len(live) == turns.get(name, 2 * (len(messages) + (tools is not None)))
    assert tokenizer.decode([tokens.ids], skip_special=False) == [rendered.text]


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


# --- bounds -----------------------------------------------------------------------------------------------------------

ENDLESS = {
    "loops over text": "{% set s = 'x' * 4000000 %}{% for a in s %}{% for b in s %}{% endfor %}{% endfor %}",
    "a text without end": "{{ lipsum(n=100000000) }}",
    "a list without end": "{% for a in [0] * 1000 recursive %}{{ loop([0] * 1000) if loop.depth < 9 }}{% endfor %}",
}
LARGE = {
    "a text doubled": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubled by plus": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "a list": "{% set x = [0] * 1000000000 %}",
    "a join": "{{ ('x' * 100000).join('x' * 100000) }}",
    "a replacement": "{{ ('x' * 100000).replace('x', 'x' * 100000) }}",
    "a wide JSON": "{{ messages | tojson(indent=1000000000) }}",
    "a translation": "{{ ('x' * 100000).translate({120: 'x' * 100000}) }}",
    "a fill": "{{ messages | batch(1000000000, 0) | list }}",
}
DAMAGED = {
    "25 loops": "{% for i in x %}" * 25 + "{% endfor %}" * 25,
    "120 conditions": "{% if x %}" * 120 + "{% endif %}" * 120,
    "6,000 digits": "{{ " + "9" * 6000 + " }}",
    "a break outside of a loop": "{% break %}",
    "3,000 brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "100,000 signs": "{{ " + "-" * 100_000 + "1 }}",
    "HTML's escapes": "{% autoescape true %}{% endautoescape %}",
}


@pytest.fixture(scope="module")
def impatient() -> TemplateProcess:
    return TemplateProcess(seconds=0.5, memory=256 * 1024 * 1024)


@pytest.mark.skipif(sys.platform == "win32", reason="only the clock bounds it there")
@pytest.mark.parametrize("name", ENDLESS)
def test_time_is_bounded_and_the_next_conversation_is_rendered(impatient: TemplateProcess, name: str) -> None:
    template = ChatTemplate(ENDLESS[name], process=impatient)
    with pytest.raises(InputError, match=r"the chat template took more than 0\.5 s of processor time"):
        template.render(TALK)
    assert ChatTemplate(CHATML, process=impatient).render(TALK).text == oracle(CHATML, TALK)


def test_the_clock_bounds_it_too() -> None:
    process = TemplateProcess(seconds=1e6, clock=1.0)
    template = ChatTemplate(ENDLESS["loops over text"], process=process)
    begun = time.monotonic()
    with pytest.raises(InputError, match="the chat template took more than 1 s"):
        template.render(TALK)
    assert time.monotonic() - begun < 20
    process.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no process's memory")
@pytest.mark.parametrize("name", LARGE)
def test_memory_is_bounded_and_the_next_conversation_is_rendered(impatient: TemplateProcess, name: str) -> None:
    template = ChatTemplate(LARGE[name], process=impatient)
    with pytest.raises(InputError, match=r"the chat template (needs more than|took more than)"):
        template.render(TALK)
    assert ChatTemplate(CHATML, process=impatient).render(TALK).text == oracle(CHATML, TALK)


@pytest.mark.parametrize("name", DAMAGED)
def test_what_no_compiler_takes_is_one_error(name: str) -> None:
    with pytest.raises((CheckpointError, InputError), match="the chat template"):
        ours(DAMAGED[name]).render(TALK)
    assert ours(CHATML).render(TALK).text == oracle(CHATML, TALK)


def test_conversations_that_are_no_plain_data() -> None:
    deep: Any = "x"
    for _ in range(3000):
        deep = [deep]
    for content in (b"x", object(), 10**5000, deep):
        with pytest.raises(InputError, match=r"the conversation is|the chat template"):
            ours(CHATML).render([{"role": "user", "content": content}])


def test_nothing_of_the_working_folder_runs(tmp_path: Path) -> None:
    for name in ("jinja2", "json", "typing", "sitecustomize", "templates", "markupsafe", "random"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.ran', 'w')")
    program = (
        "import sys; sys.path = [path for path in sys.path if path not in ('', '.')]\n"
        "from sublayer.text.chat import ChatTemplate\n"
        "print(ChatTemplate('{{ messages[0].content }}').render([{'role': 'user', 'content': 'hi'}]).text)\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path and Path(path).is_absolute())
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "hi\n", done.stderr
    assert not list(tmp_path.glob("*.ran"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_has_a_process_of_its_own() -> None:
    template = ours(CHATML)
    expected = template.render(TALK).text
    child = os.fork()
    if child == 0:
        os._exit(0 if template.render(TALK).text == expected else 1)
    assert template.render(TALK).text == expected
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- by name ----------------------------------------------------------------------------------------------------------

NAMED = {"default": CHATML, "tool_use": "{{ tools | tojson }}" + CHATML, "rag": "{{ documents }}"}


def test_tools_take_the_template_that_is_for_them(tmp_path: Path) -> None:
    """With tools given, "default" was taken, and the tools vanished."""
    options: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    specials = ("<unk>", *MARKERS)
    listed = [{"name": name, "template": source} for name, source in NAMED.items()]
    in_config = vocabularies.gpt2(tmp_path / "config", specials, chat_template=listed, **options)
    in_files = vocabularies.gpt2(tmp_path / "files", specials, **options)
    (in_files / "chat_template.jinja").write_text(NAMED["default"])
    (in_files / "additional_chat_templates").mkdir()
    for name in ("tool_use", "rag"):
        (in_files / "additional_chat_templates" / f"{name}.jinja").write_text(NAMED[name])
    for folder in (in_config, in_files):
        ours, theirs = load_folder(folder), transformers.AutoTokenizer.from_pretrained(folder)
        ours.save(folder / "saved.json")
        export(ours, folder / "exported")
        (folder / "saved.json").rename(folder / "exported" / "again.json")
        (folder / "sublayer_tokenizer.json").rename(folder / "exported" / "sublayer_tokenizer.json")
        again = Tokenizer.load(folder / "exported" / "again.json")
        exported = transformers.AutoTokenizer.from_pretrained(folder / "exported")
        for tools in (None, [], TOOLS):
            expected = theirs.apply_chat_template(TALK, tools=tools, tokenize=False)
            assert (expected[0] == "[") == (tools is not None)
            assert ours.chat.render(TALK, tools=tools).text == expected
            assert again.chat.render(TALK, tools=tools).text == expected
            assert exported.apply_chat_template(TALK, tools=tools, tokenize=False) == expected


def test_tools_never_vanish(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="the chat template knows no tools, and 1 are given"):
        tokenizer.encode_chat(TALK[:1], tools=TOOLS)
    with pytest.raises(
        InputError, match=r"no chat template is for a conversation without tools \(there are: tool_use\)"
    ):
        ChatTemplate({"tool_use": NAMED["tool_use"]}).render(TALK)
    with pytest.raises(CheckpointError, match="the chat template 'tool_use' is damaged"):
        ChatTemplate({**NAMED, "tool_use": "{% for %}"}).render(TALK)


# --- several at once ------------------------------------------------------------------------------------------------


def conversations(count: int) -> list[list[dict[str, str]]]:
    """Some with what spells special tokens, and with signs of several bytes."""
    words = ["hi", "<|im_end|>", "El niño", "", "</s><s>", "a\nb", "\U0001f600"]
    return [
        [
            {"role": role, "content": words[(at + turn) % 7] * (at % 3)}
            for turn, role in enumerate(["user", "assistant"])
        ]
        * (1 + at % 3)
        for at in range(count)
    ]


def test_several_conversations_are_what_each_is_alone(tokenizer: Tokenizer) -> None:
    given = conversations(TOGETHER + 9)
    alone = [next(tokenizer.encode_answers_of([each])) for each in given]
    assert list(tokenizer.encode_answers_of(given)) == alone
    assert any(any(answers) for _, answers in alone)
    assert list(tokenizer.encode_answers_of([])) == []


@pytest.mark.parametrize(
    "bad",
    [
        [{"role": "a b", "content": "x"}],
        [{"role": "user", "content": "nobody answers"}],
        [{"role": "user"}, {"role": "assistant", "content": "x"}],
        [{"role": "user", "content": "\ufdd0"}, {"role": "assistant", "content": "x"}],
        [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "x"}],
        [{"role": "user", "content": {1, 2}}, {"role": "assistant", "content": "x"}],
    ],
    ids=["a role", "no answer", "no content", "a noncharacter", "half a pair", "a set"],
)
def test_a_bad_conversation_is_met_in_its_place(tokenizer: Tokenizer, bad: list[dict[str, Any]]) -> None:
    """What stands before it is encoded, and it says what it says alone."""
    with pytest.raises(InputError) as alone:
        next(tokenizer.encode_answers_of([bad]))
    good = conversations(5)
    found = tokenizer.encode_answers_of([*good, bad, *good])
    assert [next(found) for _ in good] == [next(tokenizer.encode_answers_of([each])) for each in good]
    with pytest.raises(InputError) as met:
        next(found)
    assert str(met.value) == str(alone.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit no process's memory")
@pytest.mark.parametrize(
    "fault", ["{% set x = [0] * 1000000000 %}", ENDLESS["loops over text"]], ids=["memory", "time"]
)
def test_a_conversation_that_takes_too_much_costs_the_others_nothing(impatient: TemplateProcess, fault: str) -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if m.content == 'bad' %}" + fault + "{% endif %}{{ m.content }}{% endfor %}",
        process=impatient,
    )
    good = [{"role": "assistant", "content": "fine"}]
    found = template.render_answers_of([good, [{"role": "assistant", "content": "bad"}], good])
    assert next(found).text == "fine"
    with pytest.raises(InputError, match=r"the chat template (needs more than|took more than)"):
        next(found)
