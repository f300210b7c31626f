"""Runs texts through an encoder graph, in batches of similar length, padded on the right."""

import numpy as np

from keras_seqattn.arguments import choice
from keras_seqattn.errors import BundleError
from keras_seqattn.generation.processors import softmax
from keras_seqattn.generation.prompts import first_tokens
from keras_seqattn.runtime.batches import length_batches
from keras_seqattn.runtime.graph_ports import numpy_dtype
from keras_seqattn.runtime.signatures import check_text_inputs

# How the probabilities of the pieces of a word are combined.
_WORD = {
    "first": lambda pieces: pieces[0],
    "average": lambda pieces: pieces.mean(axis=0),
    "max": lambda pieces: pieces[pieces.max(axis=1).argmax()],
}
WORD_STRATEGIES = tuple(_WORD)


class Encoder:
    """Runs texts through a session. Its inputs are tokens, their mask and, in some models, token
    types and a mask of global tokens (the first token of each text is global).

    Args:
        session: Session.
        tokenizer: Tokenizer.
        max_length: None, or int, the maximum number of tokens for the model.

    Raises:
        BundleError: the session has other inputs.
    """

    def __init__(self, session, tokenizer, max_length):
        check_text_inputs(session.ports, "it is not a graph for texts")
        self._session = session
        self._tokenizer = tokenizer
        self.max_length = max_length

    def batches(self, texts, pairs=None, batch_size=32, truncate=True):
        """Yield (indices into texts, encodings, mask int64 (b, s), dict of outputs by role).

        Args:
            texts: list of str.
            pairs: None, or a list of str, the second text of each pair.
            batch_size: int, number of texts per run.
            truncate: bool, cut texts that are too long. With False they are an error.

        Raises:
            InputError: an item is not a str, or it is too long.
            BundleError: the outputs of the graph are not as it declares them.
        """
        limits = {"max_length": self.max_length, "batch_size": batch_size, "truncate": truncate}
        for indices, encodings in length_batches(self._tokenizer, texts, pairs, **limits):
            given, ports = self._pad(encodings), self._session.ports
            feeds = {
                port.name: given[port.role].astype(numpy_dtype(port), copy=False)
                for port in ports.inputs
            }
            arrays = self._session.run(None, feeds)
            outputs = {}
            for port, array in zip(ports.outputs, arrays, strict=True):
                _check_shape(port, array, given["tokens"].shape)
                outputs.setdefault(port.role, array)
            yield indices, encodings, given["mask"], outputs

    def _pad(self, encodings):
        shape = len(encodings), max(len(encoding.ids) for encoding in encodings)
        given = {
            "tokens": np.full(shape, self._tokenizer.pad_id, np.int64),
            "mask": np.zeros(shape, np.int64),
            "token_types": np.zeros(shape, np.int64),
        }
        for i, encoding in enumerate(encodings):
            size = len(encoding.ids)
            given["tokens"][i, :size] = encoding.ids
            given["mask"][i, :size] = 1
            given["token_types"][i, :size] = encoding.type_ids
        given["global_mask"] = first_tokens(given["mask"])
        return given


def _check_shape(port, array, texts):
    """Check the shape of an output for texts (b, s), because onnxruntime only warns."""
    if port.role not in ("hidden_states", "logits"):
        return
    sizes = [*texts[: len(port.axes) - 1], *port.axes[-1:]]
    wanted = [size if isinstance(size, int) else "any" for size in sizes]
    fits = [w in (size, "any") for w, size in zip(wanted, array.shape, strict=False)]
    if len(wanted) != array.ndim or not all(fits):
        raise BundleError(
            f"the graph gives {port.name} of the shape {array.shape} for texts {texts}, and it "
            f"must be {tuple(wanted)}"
        )


def class_probabilities(logits, problem_type):
    """Scores of classes from `logits` (b, classes), according to the problem_type of the config."""
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification" or logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    return softmax(logits)


def words_of(encoding, probabilities, strategy):
    """Join the pieces of each word.

    Args:
        encoding: an encoding of the tokenizers library, with offsets and word ids.
        probabilities: float32 (s, labels), for the tokens of the text.
        strategy: "first", "average" or "max": how the pieces of a word are combined.

    Returns:
        List of (start, end, float32 (labels,)): the place of a word in the text, and its scores.
    """
    choice(strategy, "aggregation", WORD_STRATEGIES)
    pieces = {}
    for position, word in enumerate(encoding.word_ids):
        if word is not None and not encoding.special_tokens_mask[position]:
            pieces.setdefault(word, []).append(position)
    return [
        (
            encoding.offsets[positions[0]][0],
            encoding.offsets[positions[-1]][1],
            _WORD[strategy](probabilities[positions]),
        )
        for positions in pieces.values()
    ]


def group_entities(text, words, labels):
    """Join neighbouring words of one entity: B-X starts it, I-X or X continues it, O is left out.

    Args:
        text: str.
        words: list of (start, end, float32 (labels,)), the result of `words_of`.
        labels: list of str.

    Returns:
        List of dict entity, text, start, end, score (the mean over the words).
    """
    groups = []
    for start, end, scores in words:
        best = int(scores.argmax())
        begins, kind = labels[best].startswith("B-"), labels[best].removeprefix("B-")
        kind = kind.removeprefix("I-")
        if groups and groups[-1]["kind"] == kind and not begins:
            groups[-1]["end"] = end
            groups[-1]["scores"].append(float(scores[best]))
        else:
            groups.append(
                {"kind": kind, "start": start, "end": end, "scores": [float(scores[best])]}
            )
    return [
        {
            "entity": group["kind"],
            "text": text[group["start"] : group["end"]],
            "start": group["start"],
            "end": group["end"],
            "score": float(np.mean(group["scores"])),
        }
        for group in groups
        if group["kind"] != "O"
    ]
