"""The places of the norms around the sublayers of a block, and the inputs of the sublayers."""

import dataclasses
import functools

import keras

from keras_seqattn.arguments import shown


@keras.saving.register_keras_serializable(package="keras_seqattn")
@dataclasses.dataclass(frozen=True)
class Residual:
    """How a sublayer f adds to the stream x. With all norms: `norm(x + norm(f(norm(x))))`.

    Args:
        input_norm: normalise the input of the sublayer.
        output_norm: normalise its output.
        sum_norm: normalise the sum with the stream.
        parallel: attention and feed-forward have the same input:
            `x + attention(norm(x)) + feed_forward(norm(x))`.
        shared_norm: parallel sublayers share one input norm.

    Raises:
        ValueError: parallel sublayers have a norm of the sum, or a shared norm is asked for without
            parallel sublayers or an input norm.
    """

    input_norm: bool = False
    output_norm: bool = False
    sum_norm: bool = False
    parallel: bool = False
    shared_norm: bool = False

    def __post_init__(self):
        if self.parallel and self.sum_norm:
            raise ValueError("Parallel sublayers have no norm of each sum; leave out sum_norm.")
        if self.shared_norm and not (self.parallel and self.input_norm):
            raise ValueError("shared_norm is the input norm of parallel sublayers; ask for both.")

    def norms(self, sublayer):
        """The names of the norms of one sublayer.

        Args:
            sublayer: its name, for example "attention".

        Returns:
            dict of "input", "output" or "sum", for each norm that exists -> the name of the layer.
            The name of the first norm is the name of the sublayer and `_norm`.
        """
        return _norms(self, sublayer)

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@functools.cache
def _norms(residual, sublayer):
    flags = {
        "input": residual.input_norm,
        "output": residual.output_norm,
        "sum": residual.sum_norm,
    }
    places = [place for place, norm in flags.items() if norm]
    names = [f"{sublayer}_norm", *(f"{sublayer}_{place}_norm" for place in places[1:])]
    own = dict(zip(places, names, strict=False))
    if residual.shared_norm:
        del own["input"]
    return own


# The names for `residual=` of a block: pre-norm; post-norm, as in the first Transformer; norms of
# the output of a sublayer (OLMo-2); norms on both sides (Gemma-2); parallel sublayers, each with
# its norm (GPT-NeoX) or with one shared norm (GPT-J, PaLM).
RESIDUALS = {
    "pre": Residual(input_norm=True),
    "post": Residual(sum_norm=True),
    "output": Residual(output_norm=True),
    "both": Residual(input_norm=True, output_norm=True),
    "parallel": Residual(input_norm=True, parallel=True),
    "parallel_shared": Residual(input_norm=True, parallel=True, shared_norm=True),
}


def read_residual(residual, normalize_first):
    """The `Residual` for the arguments of a block.

    Args:
        residual: None, a name in `RESIDUALS`, or a `Residual`.
        normalize_first: if `residual` is None: True for pre-norm, False for post-norm.

    Raises:
        ValueError: `residual` is none of these, or it contradicts `normalize_first`.
    """
    if residual is None:
        return RESIDUALS["pre" if normalize_first else "post"]
    named = RESIDUALS.get(residual) if isinstance(residual, str) else residual
    if not isinstance(named, Residual):
        raise ValueError(
            f"residual must be a Residual or one of {', '.join(RESIDUALS)}. "
            f"Received: residual={shown(residual)}"
        )
    if normalize_first and residual != "pre":
        raise ValueError(
            f"residual={shown(residual)} says where the norms stand; leave out normalize_first."
        )
    return named
