"""Graphs inside nodes: the bodies of loops and branches."""

import contextlib

import onnx_ir as ir

from keras_seqattn.onnx.symbol import Symbol


class Bodies:
    """The part of a graph builder that makes bodies."""

    @contextlib.contextmanager
    def body(self, name):
        """A graph inside a node. Nodes that are emitted in the `with` block go into it.

        It may read all earlier values. Its own values are not known outside. Weights and constants
        still go into the main graph.
        """
        block, memo, sizes = self._block, self._memo, self._sizes
        graph = ir.Graph((), (), nodes=(), name=self.unique_name("/".join([*self._scope, name])))
        self._block, self._memo, self._sizes = graph, dict(memo), dict(sizes)
        try:
            yield graph
        finally:
            memo.update({k: x for k, x in self._memo.items() if _is_initializer(x)})
            self._block, self._memo, self._sizes = block, memo, sizes

    @contextlib.contextmanager
    def main_graph(self):
        """Nodes that are emitted in the `with` block go into the main graph, even inside a body.

        They may read only weights and constants.
        """
        block, self._block = self._block, self.graph
        try:
            yield
        finally:
            self._block = block

    def body_input(self, graph, name, sizes, dtype):
        """Declare an input of a body."""
        name = self.unique_name(f"{graph.name}/{name}")
        value = self._new_value(name, (sizes, dtype))
        graph.inputs.append(value)
        return Symbol(value, sizes, dtype)


def _is_initializer(x):
    return isinstance(x, Symbol) and x.value.const_value is not None
