"""Chat templates: rendered as by transformers, in bounded time and memory."""

import copy

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.runtime.chat import ChatTemplate

pytestmark = pytest.mark.backend_free

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
USER = {"role": "user", "content": "  What is 2 + 2? "}
ANSWER = {"role": "assistant", "content": "<think>\neasy\n</think>\n\nFour, naïve 語.\n"}
CONVERSATIONS = [
    [USER],
    [USER, ANSWER, {"role": "user", "content": "And 3 + 3?\n\nBriefly."}],
    [{"role": "system", "content": "Be brief."}, USER, ANSWER, USER],
]
# In the manners of the families: special tokens by role, blocks with headers, instructions in
# brackets, thoughts cut out, tools as JSON, dates.
TEMPLATES = {
    "chatml": """{% for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "default system": """{%- if messages[0]['role'] != 'system' -%}
    {{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif -%}
{% for m in messages %}
    {% generation %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content|trim }}{% endgeneration %}

    {{ eos_token }}
{% endfor %}""",
    "headers": """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|head|>system<|tail|>\\n\\nToday: " + date_string + "\\n\\n" + system + "<|end|>" }}
{%- if tools is not none %}{{- tools | tojson(indent=4) }}{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|tail|>\\n\\n' }}
        {{- message['content'] | trim + '<|end|>' }}
    {%- elif message.tool_calls|length != 1 %}
        {{- raise_exception("one tool at a time") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|head|>assistant<|tail|>\\n\\n' }}{%- endif %}""",
    "brackets": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages if message.role != "tool" %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}{%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + " [/INST]" }}{%- endif %}
    {%- else %}{{- " " + message["content"]|trim + eos_token }}{%- endif %}
{%- endfor %}""",
    "thoughts": """{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi and message.role == "user" and message.content is string
           and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- macro render(content) -%}
    {%- if content is string -%}{{ content }}{%- else -%}
    {%- for part in content if part.type == 'text' -%}{{ part['text'] }}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- for message in messages %}
    {%- set content, thought = render(message.content), '' %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
        {{- '<|' ~ message.role ~ '|>' ~ thought.strip('\\n') ~ content.replace('\\n\\n', '\\n') }}
    {%- else %}{{- '<|%s|>%s' % (message.role, content) }}{%- endif %}
    {{- '{0}:{1:>4}'.format(loop.index, loop.length) }}
{%- endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}no thoughts{%- endif %}""",
    "functions": """{%- set roles = messages | map(attribute='role') | unique | list %}
{{ roles | join(', ') | upper }} {{ '; '.join(messages | map(attribute='role')) }}
{{ 'user' in messages | map(attribute='role') }} {{ [roles, [roles]] == [roles, [roles]] }}
{%- for key, value in {'b': 1, 'a': [1.5, none, true]}.items() | sort %} {{ key }}={{ value }}
{%- endfor %}
{% for m in messages | rejectattr('role', 'equalto', 'system') | selectattr('content') %}
{{ loop.cycle('odd', 'even') }} {{ m | tojson }} {{ m.content | length // 2 ** 2 }}
{%- if not loop.first and loop.previtem.role == m.role %}again{% continue %}{% endif %}
{% if loop.index > 2 %}{% break %}{% endif %}
{% endfor %}
{% set joined %}{% for m in messages %}{{ m.content[:4] | indent(2) }}{% endfor %}{% endset %}
{{ joined | default('none') | capitalize }} {{ missing | default('none') }} {{ [3, 1] | max }}
{% macro outer() %}{{ caller(1) }}{% endmacro %}{% call(x) outer() %}{{ x }}{% endcall %}""",
}


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=len)
@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_equal_transformers(name, conversation):
    template = ChatTemplate(TEMPLATES[name], TOKENS)
    for prompted in (True, False):
        wanted = render_jinja_template(
            [copy.deepcopy(conversation)],
            chat_template=TEMPLATES[name],
            add_generation_prompt=prompted,
            **TOKENS,
        )[0][0]
        assert wanted.strip()
        assert template.render(conversation, prompted) == wanted


def test_long_conversations_are_rendered():
    """A thousand long messages, which a template may go through and copy."""
    messages = [{"role": "user", "content": "word " * 400}, ANSWER] * 500
    assert len(ChatTemplate(TEMPLATES["thoughts"], TOKENS).render(messages)) > 1_000_000
    assert len(ChatTemplate(TEMPLATES["chatml"], TOKENS).render(messages)) > 1_000_000


ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "conditions": "{% for a in range(99999) %}{% for b in range(99999) if b < 0 %}{% endfor %}"
    "{% endfor %}",
    "characters": "{% for a in 'x' * 10**6 %}{% for b in 'x' * 10**6 %}{% endfor %}{% endfor %}",
    "long bodies": "{% for a in range(99999) %}{{ [" + "1, " * 20000 + "] | length }}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(80) }}",
    "deep macros": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursion": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "blocks": "{% block x %}{{ self.x() }}{% endblock %}",
    "chains": "{% for a in range(9999) %}{{ range(99999) | map('string') | map('upper') | list"
    " | length }}{% endfor %}",
    "a list of text": "{{ 'x' * 10**10 }}",
    "items": "{{ [1] * 10**10 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "products": "{% set ns = namespace(x=99) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}"
    "{% endfor %}",
    "hexadecimal": "{{ ('f' * 9**7) | int(0, 16) }}",
    "doubling": "{% set ns = namespace(x='a') %}{% for i in range(99) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "joining": "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}",
    "shared lists": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x OP }}",
    "text made again": "{% set x %}{% for i in range(99999) %}DATA{% endfor %}{% endset %}"
    "{% for i in range(99999) %}{{ x }}{% endfor %}",
    "filter blocks": "{% filter upper %}{% for i in range(99999) %}{% for i in range(99999) %}a"
    "{% endfor %}{% endfor %}{% endfilter %}",
    "words": "{{ lipsum(10**7) }}",
    "center": "{{ 'x'.center(10**10) }}",
    "center filter": "{{ 'x' | center(10**10) }}",
    "zfill": "{{ 'x'.zfill(10**10) }}",
    "ljust": "{{ 'x'.ljust(10**10) }}",
    "tabs": "{{ '\\t'.expandtabs(10**9) }}",
    "replace": "{{ ('x' * 10**6).replace('', 'x' * 10**6) }}",
    "replace filter": "{{ ('x' * 10**6) | replace('x', 'x' * 10**6) }}",
    "join": "{{ ('x' * 10**6).join(['a'] * 99999) }}",
    "join filter": "{{ range(99999) | join('x' * 10**6) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "percent argument": "{{ '%*d' % (10**9, 1) }}",
    "percent name": "{{ '%(a)999999999s' % {'a': 1} }}",
    "percent filter": "{{ '%.9999999999f' | format(1) }}",
    "format": "{{ '{:10000000000}'.format(1) }}",
    "format of format": "{{ '{:{}}'.format(1, 10**10) }}",
    "indent": "{{ 'a\\nb' | indent(10**9) }}",
    "json": "{{ messages | tojson(indent=10**9) }}",
    "json separators": "{{ (range(99999) | list) | tojson(separators=('x' * 10**6, 'y')) }}",
    "round": "{{ 3.5 | round(10**9, 'ceil') }}",
    "batch": "{{ [1, 2] | batch(10**10, 'x') | list }}",
    "slice": "{{ [1, 2] | slice(10**10) | list }}",
    "range": "{{ range(10**9) | list }}",
    "sum of lists": "{{ ([[1]] * 50000) | sum(start=[]) }}",
    "deep tuples": "{% set ns = namespace(x=(1,)) %}{% for i in range(99999) %}"
    "{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}",
    "deep lists": "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}"
    "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    "date": "{{ strftime_now('%10000000000d') }}",
    "search": "{{ ('a' * 10**6).rfind('a' ~ 'b' ~ 'a' * 500000) }}",
    "strip": "{{ ('a' * 10**6).strip('b' * 10**6 + 'a') }}",
}
SHARED = ["", "| tojson", "| string", "== ns.x | list", "in [1, ns.x]", "~ 1", "| sort", "| join"]
TEXTS = {key: text for key, text in ENDLESS.items() if key != "shared lists"} | {
    f"shared lists {use}": ENDLESS["shared lists"].replace("OP", use) for use in SHARED
}
TEXTS["shared keys"] = (
    ENDLESS["shared lists"]
    .replace("[", "(")
    .replace("]", ")")
    .replace("{{ ns.x OP }}", "{{ {ns.x: 1} }}{{ {}[ns.x] }}{{ ns.x in {} }}")
)


@pytest.mark.parametrize("name", TEXTS)
def test_what_takes_too_much_is_refused(name):
    with pytest.raises(InputError, match="the chat template refuses these messages: ."):
        ChatTemplate(TEXTS[name], TOKENS).render([USER])


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}",
        "{{ 2.0 ** 9999 }}",
        "{{ missing.name }}",
        "{{ missing() }}",
        "{{ messages[0]() }}",
        "{{ 'a' + 1 }}",
        "{{ messages.append(1) }}",
        "{{ 'x'.format.__globals__.y }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ '{0.__class__.__mro__.x}'.format(1) }}",
        "{% set ns = namespace() %}{% set ns.__html__ = 'x'.format %}",
        "{{ dict.mro() }}",
        "{{ '%d' % 'a' }}",
        "{{ '{' | format }}{{ '{'.format() }}",
        "{{ messages | map('nothing') | list }}",
        "{{ [1, 'a'] | sort }}",
        "{{ {}['a']['b'] }}",
        "{{ ''.split('') }}",
        "{{ 'a'.index('b') }}",
        "{{ '\\ud800' }}",
        "{{ missing | tojson }}",
        "{{ raise_exception('x' * 10**6) }}",
        "{{ 'a'.encode() }}",
        "{{ self.x() }}",
    ],
)
def test_whatever_a_template_raises_is_one_error(source):
    with pytest.raises(InputError, match="the chat template refuses these messages: .") as caught:
        ChatTemplate(source, TOKENS).render([USER])
    assert len(str(caught.value)) < 700 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{% break %}",
        "{{ a",
        "{{ 'x' | nothing }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ " + "(" * 9999,
        "{{ 1" + " + 1" * 20000 + " }}",
        "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
        "{% for x in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "9" * 9999 + " }}",
        "x" * 100_001,
    ],
)
def test_what_is_no_template(source):
    with pytest.raises(BundleError, match="the chat template is not valid: ."):
        ChatTemplate(source, TOKENS)


@pytest.mark.parametrize("messages", [None, 3, [], {}, [3], [{"role": "user"}], [[USER]], ""])
def test_what_is_no_conversation(messages):
    template = ChatTemplate(TEMPLATES["chatml"], TOKENS)
    if messages == "":
        assert template.render(messages)
        return
    with pytest.raises(InputError, match="must"):
        template.render(messages)


def test_a_conversation_that_holds_itself():
    message = {"role": "user", "content": []}
    message["content"].append(message)
    with pytest.raises(InputError, match="holds itself"):
        ChatTemplate(TEMPLATES["chatml"], TOKENS).render([message])
