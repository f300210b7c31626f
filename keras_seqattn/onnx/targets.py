"""The export targets and what they can run, as data. Lowerings ask `target.supports(op_type)`.

To add a target, add one row: `register_target(Target("mine", opset=21))`.
"""

import dataclasses
import re

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ExportError

# Opset 23 has Attention, RMSNormalization and RotaryEmbedding as single nodes. The oldest runtime
# that knows opset 23 reads IR 10.
_OPSET = 23
_IR_VERSION = 10
_ONNXRUNTIME = "1.24"
_CPU = "CPUExecutionProvider"


@dataclasses.dataclass(frozen=True)
class Target:
    """One runtime for files.

    Attributes:
        name: the name for users.
        contrib: the com.microsoft operators that may be used.
        opset: the version of the standard operators.
        ir_version: the highest version of the file format that may be written.
        onnxruntime: the lowest version of onnxruntime that runs the files.
        providers: the execution providers for verification, the preferred one first.
        floats: the float types in which it computes. Values of other float types become float32.
        shares_caches: whether past and present of a decoder may be one buffer, if every attention
            works in place. Otherwise each step copies the caches when they grow.

    Raises:
        ExportError: an attribute has another type.
    """

    name: str
    contrib: frozenset = frozenset()
    opset: int = _OPSET
    ir_version: int = _IR_VERSION
    onnxruntime: str = _ONNXRUNTIME
    providers: tuple = (_CPU,)
    floats: frozenset = frozenset({"float16", "float32", "float64"})
    shares_caches: bool = False

    def __post_init__(self):
        for name in ("contrib", "floats", "providers"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(part, str) for part in value):
                raise ExportError(f"{name} of a target is a set of names, not {shown(value)}")
        for name in ("opset", "ir_version"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ExportError(f"{name} of a target is a whole number, not {shown(value)}")
        if not isinstance(self.onnxruntime, str) or not _numbers(self.onnxruntime):
            version = shown(self.onnxruntime)
            raise ExportError(f'onnxruntime of a target is a version like "1.24", not {version}')

    def supports(self, op_type):
        """Whether the operator of the domain com.microsoft may be used."""
        return op_type in self.contrib

    @property
    def opset_imports(self):
        """The versions of domains that a graph declares while it is built."""
        opset = max(self.opset, _OPSET)
        return {"": opset} | ({"com.microsoft": 1} if self.contrib else {})

    def lower_opset(self, asked=None):
        """The version to which a graph must be lowered, or None. `asked` has priority."""
        if asked is not None:
            return asked
        return self.opset if self.opset < _OPSET else None


TARGETS = {}


def register_target(target):
    """Add a target, so that `export(..., target=name)` knows it in this process.

    `keras_seqattn.cli.main`, called in the same process, knows it, too.

    Args:
        target: Target.

    Returns:
        `target`.

    Raises:
        ExportError: the argument is not a Target, or another target has the same name.
    """
    return add_row(TARGETS, Target, "target", target)


def add_row(table, kind, word, row):
    """Put a row into a table under its name. The same row may be added again.

    Raises:
        ExportError: the row has a wrong type, its name is not valid, or another row has its name.
    """
    if not isinstance(row, kind):
        raise ExportError(f"a {word} must be a {kind.__name__}, not {shown(row)}")
    if not isinstance(row.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", row.name):
        raise ExportError(
            f"the name of a {word} is made of letters, digits, '_', '-' and '.', "
            f"not {shown(row.name)}"
        )
    if table.setdefault(row.name, row) != row:
        raise ExportError(f"there is a {word} {row.name!r} already; choose another name")
    return row


def find_row(table, kind, word, name):
    """The row with that name. A row itself may be given, too.

    Raises:
        ExportError: the name is unknown.
    """
    if isinstance(name, kind):
        return name
    if not isinstance(name, str) or name not in table:
        raise ExportError(f"unknown {word} {shown(name)}; choose one of {', '.join(table)}")
    return table[name]


def get_target(name):
    """The target with that name.

    Raises:
        ExportError: the name is unknown.
    """
    return find_row(TARGETS, Target, "target", name)


def check_onnxruntime(target, installed):
    """Raise ExportError if the installed version, str, is older than the target needs."""
    if _numbers(installed) < _numbers(target.onnxruntime):
        raise ExportError(
            f"files for the target {target.name} need onnxruntime {target.onnxruntime}, and "
            f"{installed} is installed: upgrade it, or export with verify=False"
        )


def _numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


register_target(
    Target(
        "ort",
        contrib=frozenset(
            {
                "BiasGelu",
                "FusedMatMul",
                "GroupQueryAttention",
                "QuickGelu",
                "SkipSimplifiedLayerNormalization",
            }
        ),
        shares_caches=True,
    )
)
register_target(Target("portable"))
