"""Jinja's sandbox with a price for every operation, for chat templates of strangers.

Tables list what a template may call, and the cost. Everything else is refused. To count
statements, nodes are added to the parsed template.
"""

import datetime
import functools
import json
import re
from collections.abc import Iterator
from types import BuiltinFunctionType

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_eval_context
from jinja2.visitor import NodeTransformer

from keras_seqattn.runtime.template_budget import (
    ITEM,
    NODE,
    OPERATION,
    TooMuch,
    budget,
    deep_size,
    shallow_size,
    spend,
    text_size,
)
from keras_seqattn.runtime.template_costs import (
    COMPARING,
    FILTER_COSTS,
    FILTERS,
    LOOKED_INTO,
    METHODS,
    binop_cost,
    contains_cost,
)

# Real templates have up to some 20,000 characters.
_SOURCE_LIMIT = 100_000
# Names of filters that no template can write.
_PAY, _SLICED, _COMPARED, _CONTAINS, _JOINED = (
    "to pay",
    "sliced",
    "compared",
    "contains ",
    "joined ",
)


def compile_template(source):
    """A `jinja2.Template`. It must be rendered inside `spent_here` of a `Budget`.

    Raises:
        Exception: any error of jinja2 or Python for a source that is not valid.
    """
    if len(source) > _SOURCE_LIMIT:
        raise TooMuch(f"it has {len(source)} characters, and at most {_SOURCE_LIMIT} are read")
    environment = _environment()
    return environment.from_string(_Pricing().visit(environment.parse(source)))


@functools.cache
def _environment():
    return _Environment()


class _Generation(Extension):
    """`{% generation %}`, a block of text. With it, transformers finds the assistant's answers."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self):
        # Constants are not computed when compiling, because that would have to be paid too.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_output,
            extensions=[_Generation, loopcontrols],
        )
        self.filters["tojson"] = _to_json
        self.filters = {
            name: _priced(self.filters[name], name in LOOKED_INTO, FILTER_COSTS.get(name))
            for name in FILTERS
        }
        self.filters |= {
            _PAY: _pay,
            _SLICED: _sliced,
            _COMPARED: _compared,
            _CONTAINS: _contains,
            _JOINED: _joined,
        }
        self.tests = {
            name: _priced(test, name in COMPARING, contains_cost if name == "in" else None)
            for name, test in self.tests.items()
        }
        self.globals = {
            "range": self.globals["range"],
            "dict": _new_dict,
            "cycler": Cycler,
            "joiner": Joiner,
            "namespace": _Namespace,
            "raise_exception": _raise,
            "strftime_now": _now,
        }
        self._functions = tuple(self.globals.values())

    def call_binop(self, context, operator, left, right):
        spend(OPERATION + binop_cost(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def getitem(self, obj, argument):
        spend(NODE if isinstance(argument, (str, int)) else deep_size(argument))
        return super().getitem(obj, argument)

    def call(__self, __context, __obj, *args, **kwargs):  # noqa: B902, N805 as in jinja2
        if isinstance(__obj, BuiltinFunctionType):
            args = [_listed(x) for x in args]
        # In loops and blocks, jinja2 adds its own arguments.
        named = {name: x for name, x in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        spend(OPERATION + __self._call_cost(__obj, args, named))
        with budget().deeper():
            result = super().call(__context, __obj, *args, **kwargs)
        return _paid(result)

    def _call_cost(self, function, args, kwargs):
        if isinstance(function, (Macro, LoopContext, BlockReference, Joiner, Undefined)):
            return 0
        arguments = deep_size([*args, *kwargs.values()])
        if any(function is known for known in self._functions):
            return arguments
        # The sandbox wraps str.format.
        method = getattr(function, "__wrapped__", function)
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", None)
        for kind, costs in METHODS:
            if isinstance(owner, kind) and name in costs:
                cost = costs[name]
                return (
                    arguments + shallow_size(owner) + (cost(owner, *args, **kwargs) if cost else 0)
                )
        raise SecurityError(f"{name or type(function).__name__} cannot be called in a template")


class _Namespace(Namespace):
    """A namespace whose attributes cannot replace those of Python. It cannot be printed."""

    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        values = dict(*args, **kwargs)
        for name in values:
            _check_attribute(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        _check_attribute(name)
        super().__setitem__(name, value)

    def __repr__(self):
        return "<Namespace>"


def _check_attribute(name):
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"{name!r} cannot be an attribute of a namespace")


class _Pricing(NodeTransformer):
    """Adds a price to the statements of a template, and to operations that the sandbox misses."""

    def visit(self, node, *args, **kwargs):
        if not isinstance(node, _NODES):
            raise TemplateError(f"{type(node).__name__} is not available in chat templates")
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node):
        cost = _price(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(cost, lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(cost, node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node):
        cost = _price(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(cost, lineno=node.lineno))
        return node

    visit_CallBlock = visit_Block = visit_Macro

    def visit_TemplateData(self, node):
        # A constant text has a price, like the result of every expression.
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_Getitem(self, node):
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        # When Python compiles a slice of a constant number, it would print a warning.
        node.node = _filter(node.node, _SLICED)
        return _filter(node, _SLICED)

    def visit_Concat(self, node):
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _JOINED)

    def visit_Pair(self, node):
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter(node.key, _COMPARED)
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        pairs, left = [], node.expr
        for operand in node.ops:
            pairs.append(_compare(left, operand))
            left = operand.expr
        return functools.reduce(lambda a, b: nodes.And(a, b, lineno=node.lineno), pairs)


def _compare(left, operand):
    line = {"lineno": left.lineno}
    if operand.op in ("in", "notin"):
        found = _filter(left, _CONTAINS, operand.expr)
        return found if operand.op == "in" else nodes.Not(found, **line)
    right = nodes.Operand(operand.op, _filter(operand.expr, _COMPARED), **line)
    return nodes.Compare(_filter(left, _COMPARED), [right], **line)


def _filter(node, name, *arguments):
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


def _price(node):
    """A node that pays for one run of the body of a statement."""
    count = sum(1 for _ in node.find_all(nodes.Node)) + 1
    return _filter(nodes.Const(count * NODE, lineno=node.lineno), _PAY)


_NODES = tuple(
    getattr(nodes, name)
    for name in "Template Output TemplateData Const For If Macro CallBlock FilterBlock With Block "
    "Assign AssignBlock ExprStmt Scope Break Continue BinExpr UnaryExpr Name NSRef Tuple List Dict "
    "Pair Keyword CondExpr Filter Test Call Getitem Getattr Slice Concat Compare Operand".split()
)


@pass_eval_context
def _output(_, value):
    spend(NODE + deep_size(value))
    text = str(value)
    spend(text_size(text))
    return text


def _pay(units):
    spend(units)
    return True


def _sliced(value):
    return _paid(value)


def _compared(value):
    spend(deep_size(value))
    return value


def _contains(value, container):
    container = _listed(container)
    spend(contains_cost(value, container))
    return value in container


def _joined(values):
    spend(deep_size(values))
    return _paid("".join(map(str, values)))


def _paid(value):
    """The result of an operation, paid by its size. An iterator is paid item by item."""
    if isinstance(value, Iterator):
        return _counted(value)
    spend(shallow_size(value))
    return value


def _listed(value):
    """The value. An iterator, which can be read only once, becomes a list of its items."""
    return list(_counted(value)) if isinstance(value, Iterator) else value


def _counted(items):
    for item in items:
        spend(ITEM)
        yield item


def _priced(function, looks_into, cost):
    """A filter or test that pays for its arguments, for `cost`, and for its result."""
    # jinja2 marks functions whose first argument is the environment or the context.
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def priced(*args, **kwargs):
        spend(OPERATION)
        if looks_into or cost:
            args = [_listed(x) for x in args]
        if looks_into:
            spend(deep_size([*args[first:], *kwargs.values()]))
        if cost:
            spend(cost(*args[first:], **kwargs))
        return _paid(function(*args, **kwargs))

    return priced


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    # Each piece is paid for. With an indent, the size of a piece depends on its depth.
    pieces = []
    for piece in encoder.iterencode(value):
        spend(text_size(piece))
        pieces.append(piece)
    return "".join(pieces)


def _new_dict(*args, **kwargs):
    return dict(*args, **kwargs)


def _raise(message):
    raise TemplateError(str(message))


def _now(form):
    if len(form) > 200 or re.search(r"%[^a-zA-Z%]*\d{3,}", form):
        raise TooMuch("it asks for a date of a great width")
    return datetime.datetime.now().strftime(form)
