"""Which operations hand on the mask of a tensor that they do not change.

Keras attaches a mask to a tensor of its backend. An operation hands it on only by returning the
same tensor, and which operations do so differs between the backends, here as `predict` runs them.
"""

import keras

from keras_seqattn.onnx.symbol import Symbol

_EVERYWHERE = frozenset({"Cast", "ConvertToTensor", "Real"})
_HANDING_ON = {
    "jax": _EVERYWHERE
    | {"BroadcastTo", "Concatenate", "GetItem", "Moveaxis", "Reshape", "Swapaxes", "Transpose"},
    "tensorflow": _EVERYWHERE | {"Array", "Moveaxis", "Swapaxes"},
    "torch": _EVERYWHERE | {"Array"},
}


def as_in_keras(operation, args, result):
    """The result of an operation, with a mask only if Keras would hand it on.

    Args:
        operation: an operation of Keras that is no layer.
        args: its arguments.
        result: Symbols, the result of its lowering. They may be arguments.
    """
    given = [x for x in keras.tree.flatten(args) if isinstance(x, Symbol)]
    mask = getattr(given[0], "_keras_mask", None) if len(given) == 1 else None
    hands_on = type(operation).__name__ in _HANDING_ON[keras.backend.backend()]
    # Where sizes and number of elements stay, these two change nothing.
    unchanged = type(operation).__name__ in ("BroadcastTo", "Concatenate")

    def with_mask(x):
        if not isinstance(x, Symbol):
            return x
        kept = (
            hands_on
            and mask is not None
            and (x is given[0] or (unchanged and x.sizes == given[0].sizes))
        )
        if getattr(x, "_keras_mask", None) is not None and not kept:
            return x.without_mask()
        if kept:
            x._keras_mask = mask
        return x

    return keras.tree.map_structure(with_mask, result)
