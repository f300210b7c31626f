"""Lowers the version of the standard operators below the target's, if the operators allow it."""

import numpy as np
import onnx
import onnx_ir as ir

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ExportError

# Before this version, axes were attributes, and a softmax flattened its input.
_LOWEST = 13
# The version since which an operator means the same with the same inputs and attributes.
_CHANGED = {"AveragePool": 19, "DFT": 20, "GridSample": 20, "GroupNormalization": 21, "Resize": 19,
            "RoiAlign": 16}  # fmt: skip
# The same for some values of attributes.
_VALUES = {
    ("Pad", "mode", "wrap"): 19,
    **{(op, "reduction", word): 18 for op in ("ScatterElements", "ScatterND")
       for word in ("max", "min")},
}  # fmt: skip


def check_opset(opset):
    """Raise ExportError unless the opset is None or a version that may be asked for."""
    if opset is None:
        return
    if not isinstance(opset, int | np.integer) or isinstance(opset, bool) or opset < _LOWEST:
        raise ExportError(f"opset must be a whole number from {_LOWEST}, not {shown(opset)}")


def lower_opset(models, opset):
    """Declare a lower version of the standard operators, and the matching file format.

    Args:
        models: list of the `onnx_ir.Model` of one bundle, changed in place.
        opset: the wanted version. None does not change the models.

    Raises:
        ExportError: the models have a lower version, or one of their operators needs a higher one.
    """
    if opset is None:
        return
    needs = {}
    for model in models:
        current = model.opset_imports[""]
        if opset > current:
            raise ExportError(
                f"opset {opset} is above {current}, the highest that is written here; ask for at "
                f"most {current}, or register a target with a higher opset"
            )
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.domain == "":
                lowest = _lowest(node, opset)
                needs[node.op_type] = max(lowest, needs.get(node.op_type, 0))
    missing = {name: version for name, version in needs.items() if version > opset}
    if missing:
        listed = ", ".join(f"{name} ({version})" for name, version in sorted(missing.items()))
        raise ExportError(
            f"opset {opset} is too low for the operators of this model: {listed}. The lowest "
            f"opset that has them all is {max(missing.values())}"
        )
    for model in models:
        if opset < model.opset_imports[""]:
            model.graph.opset_imports[""] = int(opset)
            model.ir_version = min(model.ir_version, _ir_version(opset))


def _ir_version(opset):
    return onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])


def _lowest(node, wanted):
    """The lowest version, from the wanted one up, that has a node as it is."""
    versions = range(wanted, onnx.defs.onnx_opset_version() + 1)
    return next((version for version in versions if _fits(node, version)), versions[-1])


def _fits(node, version):
    """Whether a version has the operator of a node, with its inputs, outputs, attributes, types."""
    if version < _CHANGED.get(node.op_type, 0):
        return False
    try:
        schema = onnx.defs.get_schema(node.op_type, version)
    except onnx.defs.SchemaError:
        return False
    for name, attribute in node.attributes.items():
        text = attribute.value if attribute.type == ir.AttributeType.STRING else None
        if name not in schema.attributes or version < _VALUES.get((node.op_type, name, text), 0):
            return False
    return _takes(schema.inputs, node.inputs, schema.min_input, schema.max_input) and _takes(
        schema.outputs, node.outputs, schema.min_output, schema.max_output
    )


def _takes(parameters, values, least, most):
    """Whether the parameters of an operator fit the values in number and type."""
    if not least <= len(values) <= most:
        return False
    for place, value in enumerate(values):
        parameter = parameters[min(place, len(parameters) - 1)]
        known = value is not None and value.dtype is not None
        if known and _type_name(value.dtype) not in parameter.types:
            return False
    return True


def _type_name(dtype):
    name = onnx.TensorProto.DataType.Name(int(dtype)).lower()
    return f"tensor({name})"
