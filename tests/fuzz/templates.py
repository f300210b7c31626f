"""Chat templates made of statements, expressions and values, from those of real templates to traps.

A template is drawn from a grammar, so that most of it is valid Jinja and runs for a while.
"""

from keras_seqattn.runtime.chat import ChatTemplate
from tests.fuzz.harness import attempt
from tests.fuzz.mutations import pick

NUMBERS = (
    "0 1 -1 2 3 7 16 99 255 4300 99999 100000 10**5 10**7 10**10 10**30 2**63 -10**9 0.5 1e308"
)
TEXTS = (
    *("''", "'a'", "'ab' * 9", "'\\n'", "'<|im_start|>'", "'%s %d'", "'%10000000000d'", "'%*d'"),
    *("'{}'", "'{0:99999999999}'", "'{:{}}'", "'{0.__class__}'", "'\\t'", "' ' * 10**4", "'é語'"),
    *("'x' * 10**6", "'x' * 10**10", "'\\ud800'", "'ab' ~ 'c'", "('a' ~ 'b') * 10**5", "'role'"),
)
NAMES = (
    *("messages", "messages[0]", "messages[-1]['content']", "messages[0].role", "bos_token"),
    *("tools", "add_generation_prompt", "missing", "missing.name", "loop", "loop.index", "ns.x"),
    *("ns", "i", "x", "self", "caller", "loop.last", "messages[1:]", "messages[::-1]", "varargs"),
    *("range", "dict", "cycler", "joiner", "namespace", "lipsum", "''.__class__", "x.format"),
)
CALLS = (
    *("range", "range(3)|list|length", "namespace", "dict", "cycler", "joiner", "lipsum", "m", "n"),
    *("raise_exception", "strftime_now", "caller", "loop", "loop.cycle", "loop.changed", "self.b"),
)
METHODS = (
    "strip lstrip rstrip split rsplit splitlines partition rpartition replace upper lower title "
    "capitalize casefold startswith endswith find rfind index count join format format_map "
    "center ljust rjust zfill expandtabs encode translate items keys values get copy append pop "
    "update __class__ __len__ mro is_integer bit_length to_bytes"
).split()
FILTERS = (
    "abs attr batch capitalize center count d default dictsort e escape filesizeformat first "
    "float forceescape format groupby indent int items join last length list lower map max min "
    "pprint random reject rejectattr replace reverse round safe select selectattr slice sort "
    "string striptags sum title tojson trim truncate unique upper urlencode urlize wordcount "
    "wordwrap xmlattr nothing"
).split()
NAMED = (
    *(
        "indent=10**9",
        "indent=2",
        "attribute='role'",
        "attribute='a.b.c'",
        "start=[]",
        "width=10**9",
    ),
    *(
        "default='x'",
        "separators=('x' * 10**6, 'y')",
        "sort_keys=true",
        "reverse=true",
        "first=true",
    ),
)
TESTS = (
    *("defined string mapping iterable none number sequence sameas(1) callable eq(1)".split()),
    *("in(messages) divisibleby(0) odd lower upper escaped filter test nothing true".split()),
)
BINARY = "+ - * / // % ** ~ == != < > <= >= and or in is".split() + ["not in"]
STATEMENTS = (
    *("for", "for", "for", "if", "if", "set", "set", "grow", "text", "text", "text", "output"),
    *("macro", "call", "filter", "with", "block", "break", "generation", "setblock", "include"),
)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "<think>\neasy\n</think>\n\nFour 語.", "tool_calls": []},
    {"role": "user", "content": [{"type": "text", "text": "And 3 + 3?"}]},
]


def source(random):
    """The source of a template."""
    head = (
        "{% set ns = namespace(x='a', y=[1]) %}{% macro m(a=1) %}{{ a }}{{ caller }}{% endmacro %}"
    )
    head = pick(random, ("", head, head + "{% set x = messages %}"))
    text = head + body(random, 0)
    if random.random() < 0.06:
        place = int(random.integers(len(text)))
        text = pick(random, (text[:place], text[:place] + text[place + 1 :], text + text[place:]))
    return text


def body(random, depth):
    """Some statements."""
    return "".join(statement(random, depth) for _ in range(int(random.integers(1, 4))))


def statement(random, depth):
    """One statement, with less in it the deeper it lies."""
    kind = pick(random, STATEMENTS if depth < 5 else ("text", "output"))
    value = expression(random, 0)
    if kind == "text":
        return pick(random, ("\n", "  text\n", "<|x|>", "é" * 100, "text " * 1000, "{# note #}"))
    if kind == "output":
        return "{{ " + value + " }}"
    if kind == "set":
        name = pick(random, ("x", "i", "ns.x", "ns.y", "a, b", "messages", "ns.__html__"))
        return "{% set " + name + " = " + value + " %}"
    if kind == "grow":
        grown = pick(
            random,
            ("ns.x + ns.x", "ns.x ~ ns.x", "[ns.x, ns.x]", "{'a': ns.x, 'b': ns.x}", "(ns.x, 1)"),
        )
        return "{% set ns.x = " + grown + " %}"
    if kind == "break":
        return pick(random, ("{% break %}", "{% continue %}"))
    if kind == "include":
        return pick(random, ("{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}"))
    inner = body(random, depth + 1)
    if kind == "for":
        items = pick(random, (value, "messages", "range(99)", "range(99999)", "'x' * 99999"))
        tail = pick(random, ("", "", " if " + expression(random, 1), " recursive"))
        return "{% for i in " + items + tail + " %}" + inner + "{% endfor %}"
    if kind == "if":
        return "{% if " + value + " %}" + inner + "{% else %}" + inner + "{% endif %}"
    if kind == "macro":
        name = pick(random, ("m", "n"))
        return "{% macro " + name + "(a=1) %}" + inner + "{% endmacro %}{{ " + name + "(2) }}"
    if kind == "call":
        return "{% call m() %}" + inner + "{% endcall %}"
    if kind == "filter":
        return "{% filter " + pick(random, FILTERS) + " %}" + inner + "{% endfilter %}"
    if kind == "with":
        return "{% with x = " + value + " %}" + inner + "{% endwith %}"
    if kind == "block":
        return "{% block b %}" + inner + "{% endblock %}"
    if kind == "generation":
        return "{% generation %}" + inner + "{% endgeneration %}"
    return "{% set x %}" + inner + "{% endset %}"


def expression(random, depth):
    """An expression."""
    if depth > 3:
        return pick(random, (*NUMBERS.split(), *TEXTS, *NAMES))
    kind = int(random.integers(12))
    inner = lambda: expression(random, depth + 1)  # noqa: E731
    if kind < 2:
        return pick(random, NAMES)
    if kind == 2:
        return pick(random, TEXTS)
    if kind == 3:
        return pick(random, NUMBERS.split())
    if kind == 4:
        return f"({inner()}) {pick(random, BINARY)} ({inner()})"
    if kind == 5:
        return f"({inner()}).{pick(random, METHODS)}({arguments(random, inner)})"
    if kind < 8:
        return f"({inner()}) | {pick(random, FILTERS)}({arguments(random, inner)})"
    if kind == 8:
        return f"{pick(random, CALLS)}({arguments(random, inner)})"
    if kind == 9:
        tests = f"({inner()}) is {pick(random, TESTS)}"
        return pick(random, (tests, f"({inner()} if {inner()} else {inner()})", f"not ({inner()})"))
    if kind == 10:
        return pick(
            random, (f"[{inner()}, {inner()}]", f"({inner()}, 1)", f"{{{inner()}: {inner()}}}")
        )
    slices = pick(random, ("[0]", "[-1]", "['a']", "[::-1]", "[1:]", "[:10**9]", ".x", "[x]"))
    return f"({inner()}){slices}"


def arguments(random, inner):
    """The arguments of a call."""
    given = [inner() for _ in range(int(random.integers(3)))]
    if random.random() < 0.2:
        given.append(pick(random, NAMED))
    return ", ".join(given)


def case(random, folder):
    """Compile and render a template."""
    template = attempt(ChatTemplate, source(random), {"bos_token": "<s>", "eos_token": "</s>"})
    text = attempt(template.render, CONVERSATION)
    assert isinstance(text, str) and len(text) < 2 << 20
    return "rendered"
