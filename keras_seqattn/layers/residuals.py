"""Where the norms of a block stand around its sublayers, and what the sublayers read."""

import dataclasses
import functools

import keras

from keras_seqattn.arguments import shown


@keras.saving.register_keras_serializable(package="keras_seqattn")
@dataclasses.dataclass(frozen=True)
class Residual:
    """How a sublayer f adds to the stream x: with all its norms `norm(x + norm(f(norm(x))))`.

    Args:
        input_norm: normalise what the sublayer reads.
        output_norm: normalise what it gives.
        sum_norm: normalise the sum with the stream.
        parallel: the feed-forward reads what the attention reads and not what it gives:
            `x + attention(norm(x)) + feed_forward(norm(x))`.
        shared_norm: of parallel sublayers: they have one input norm together.

    Raises:
        ValueError: parallel sublayers with a norm of the sum, or a shared norm that is none.
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
        """The norms of a sublayer of its own.

        Args:
            sublayer: its name, as "attention".

        Returns:
            dict of "input", "output" and "sum", as far as there are such -> the layer's name. The
            first is the sublayer's name and `_norm`.
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


# What `residual=` of a block may be named. Pre-norm; post-norm, as the first Transformer; norms of
# what a sublayer gives (OLMo-2); on both sides (Gemma-2); parallel sublayers with a norm each
# (GPT-NeoX), or with one together (GPT-J, PaLM).
RESIDUALS = {
    "pre": Residual(input_norm=True),
    "post": Residual(sum_norm=True),
    "output": Residual(output_norm=True),
    "both": Residual(input_norm=True, output_norm=True),
    "parallel": Residual(input_norm=True, parallel=True),
    "parallel_shared": Residual(input_norm=True, parallel=True, shared_norm=True),
}


def read_residual(residual, normalize_first):
    """The `Residual` that the arguments of a block mean.

    Args:
        residual: None, a name in `RESIDUALS`, or a `Residual`.
        normalize_first: pre-norm or else post-norm, where `residual` is None.

    Raises:
        ValueError: it is none of these, or both say how.
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
