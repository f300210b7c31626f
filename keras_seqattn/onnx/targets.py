"""What each export target can run, as data; lowerings ask `target.supports(op_type)`."""

import dataclasses

from keras_seqattn.errors import ExportError

# Opset 23 has Attention, RMSNormalization and RotaryEmbedding as single nodes; IR 10 is what the
# oldest runtime that knows opset 23 reads.
OPSET = 23
IR_VERSION = 10


@dataclasses.dataclass(frozen=True)
class Target:
    """One place where a file may run.

    Attributes:
        name: what users write.
        contrib: the com.microsoft operators that may be emitted.
    """

    name: str
    contrib: frozenset = frozenset()

    def supports(self, op_type):
        """Whether the operator of the domain com.microsoft may be used."""
        return op_type in self.contrib

    @property
    def opset_imports(self):
        """Domain versions that a file for this target declares."""
        return {"": OPSET} | ({"com.microsoft": 1} if self.contrib else {})


TARGETS = {
    "portable": Target("portable"),
    "ort": Target(
        "ort",
        frozenset(
            {
                "BiasGelu",
                "FusedMatMul",
                "GroupQueryAttention",
                "QuickGelu",
                "SkipSimplifiedLayerNormalization",
            }
        ),
    ),
}


def get_target(name):
    """The target of that name.

    Raises:
        ExportError: for an unknown name.
    """
    if isinstance(name, Target):
        return name
    if not isinstance(name, str) or name not in TARGETS:
        raise ExportError(f"unknown target {name!r}; choose one of {', '.join(sorted(TARGETS))}")
    return TARGETS[name]
