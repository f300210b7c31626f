"""Prepares padded sequences for a recurrent node. In the node, time is the first axis, and padding
is only a number of steps per row.

For any mask, the real steps of each row are gathered to its front. Afterwards the outputs are
gathered back. At masked steps they are repeated or zero.
"""

from keras import ops

from keras_seqattn.onnx.lower.elementwise import int32
from keras_seqattn.onnx.lower.shaping import transpose


class PaddedSequences:
    """The sequences of a batch, (b, t, ...), with a boolean mask (b, t) or None."""

    def __init__(self, tracer, mask):
        self.tracer, self.mask = tracer, mask
        self._key = None if mask is None else mask.value

    def lengths(self):
        """int32 (b,), also int32 in the file: the number of real steps per row. None if no mask."""
        if self.mask is None:
            return None
        return self._once("lengths", lambda: int32(self.tracer, ops.sum(self._real(), axis=1)))

    def any(self):
        """bool (b, 1): whether a row has a real step."""
        return self._once("any", lambda: ops.any(self.mask, axis=1, keepdims=True))

    def states(self, last, first):
        """The last states of a node. Rows without a real step keep their first states, if any; the
        kernels do not do this.
        """
        if self.mask is None or not first:
            return last
        pairs = zip(last, first, strict=True)
        return [ops.where(self.any(), x, y) for x, y in pairs]

    def to_node(self, x):
        """(b, t, m) -> (t, b, m), with the real steps of each row first."""
        return self._once(("to node", x.value), lambda: self._to_node(x))

    def from_node(self, y, backwards=False, zeros=False):
        """(t, b, m) -> (b, t, m), with each step back at its place.

        Args:
            y: outputs of the node.
            backwards: the node ran from the last step to the first.
            zeros: give zeros at masked steps, and not the output before them.
        """
        x = self._from_node(y, backwards, zeros)
        # A following layer with the same mask can use the output of the node directly.
        self._once(("to node", x.value), lambda: y)
        return x

    def _once(self, key, build):
        return self.tracer.once(("recurrent", key, self._key), build)

    def _to_node(self, x):
        if self.mask is None:
            return transpose(self.tracer, x, (1, 0, 2))
        return self._gather(x, self._once("order", self._order))

    def _from_node(self, y, backwards, zeros):
        if self.mask is None:
            return transpose(self.tracer, y, (1, 0, 2))
        key = ("zeros",) if zeros else ("repeated", backwards)
        places, known = self._once(key, lambda: self._places(backwards, zeros))
        # ONNX does not define the outputs after the end of a row.
        return ops.where(known, self._gather(y, places), 0.0)

    def _real(self):
        return self._once("real", lambda: ops.cast(self.mask, "int32"))

    def _seen(self):
        """int (b, t): the number of real steps up to each step."""
        return self._once("seen", lambda: ops.cumsum(self._real(), axis=1))

    def _order(self):
        """int (t, b, 2): the (row, step) that goes to each place."""
        tracer, mask = self.tracer, self.mask
        steps = ops.arange(tracer.size(mask, 1), dtype="int32")
        behind = ops.subtract(
            ops.add(ops.sum(self._real(), axis=1, keepdims=True), steps), self._seen()
        )
        places = ops.where(mask, ops.subtract(self._seen(), 1), behind)
        steps = ops.broadcast_to(steps, [tracer.size(mask, axis) for axis in (0, 1)])
        steps = tracer.symbol(steps)
        order = tracer.emit(
            "ScatterElements", [steps, places, steps], {"axis": 1}, sizes=mask.sizes, dtype="int32"
        )
        return transpose(tracer, self._pairs(self._numbers(), order), (1, 0, 2))

    def _places(self, backwards, zeros):
        """(int (b, t, 2), the place of the output of each step; bool (b, t, 1), whether it has
        one)."""
        seen, real = self._seen(), self._real()
        if zeros:
            places, known = ops.subtract(seen, 1), self.mask
        elif backwards:
            # Backwards, the node has processed later steps before a masked step.
            places = ops.subtract(seen, real)
            known = ops.less(places, ops.sum(real, axis=1, keepdims=True))
        else:
            places = ops.subtract(seen, 1)
            known = ops.greater_equal(places, 0)
        return self._pairs(places, self._numbers()), ops.expand_dims(known, -1)

    def _numbers(self):
        """int (b, t): the number of each row."""
        tracer, mask = self.tracer, self.mask
        rows = ops.expand_dims(ops.arange(tracer.size(mask, 0), dtype="int32"), 1)
        return ops.broadcast_to(rows, [tracer.size(mask, axis) for axis in (0, 1)])

    def _pairs(self, first, second):
        return ops.stack([self.tracer.symbol(x) for x in (first, second)], axis=-1)

    def _gather(self, x, pairs):
        sizes = (*pairs.sizes[:2], x.sizes[2])
        return self.tracer.emit("GatherND", [x, pairs], sizes=sizes, dtype=x.dtype)
