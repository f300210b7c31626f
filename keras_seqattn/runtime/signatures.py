"""What the graphs of each task take and give, checked when a bundle is loaded."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import BundleError
from keras_seqattn.generation.steps import varies_per_beam
from keras_seqattn.runtime.feeds import declared_dtype

_TEXTS = {"input_ids", "attention_mask", "token_type_ids", "global_attention_mask"}
# Tasks of one graph that reads whole texts -> its output, and how many axes that has.
_OUTPUTS = {
    "embedding": ("last_hidden_state", 3),
    "sequence_classification": ("logits", 2),
    "token_classification": ("logits", 3),
}
_GENERATING = ("causal_lm", "seq2seq_lm")


def task_of(metadata, config, sessions):
    """The task of a bundle: what its exporter wrote into the graph, or what the names there tell.

    Args:
        metadata: dict of the graph's.
        config: dict of config.json.
        sessions: onnxruntime.InferenceSession of each graph.

    Raises:
        BundleError: the graphs are not those of the task, or do not fit the configuration.
    """
    task = metadata.get("keras_seqattn.task") or ("seq2seq_lm" if len(sessions) > 1 else None)
    if task is not None:
        check_graphs(task, config, sessions)
        return task
    try:
        task = _guess(sessions[0])
        check_graphs(task, config, sessions)
        return task
    except BundleError:  # any graph may have such names
        return "unknown"


def _guess(session):
    if any(varies_per_beam(value.name) for value in session.get_inputs()):
        return "causal_lm"
    if any(value.name == "last_hidden_state" for value in session.get_outputs()):
        return "embedding"
    return "unknown"


def check_graphs(task, config, sessions):
    """Check that the graphs of a bundle are those of its task, and fit its configuration.

    Args:
        task: str.
        config: dict of config.json.
        sessions: onnxruntime.InferenceSession of each graph.

    Raises:
        BundleError: they are not.
    """
    if (len(sessions) > 1) != (task == "seq2seq_lm"):
        raise BundleError(
            f"the bundle has {len(sessions)} graphs, which does not fit its task {task}"
        )
    if task in _GENERATING:
        _check_vocabulary(task, config, sessions[-1])
    if task in _OUTPUTS:
        _check_text_graph(task, sessions[0])


def _check_vocabulary(task, config, decoder):
    size = config.get("vocab_size")
    if size is None:
        raise BundleError(f"config.json has no vocab_size, which the task {task} needs")
    logits = _output(task, decoder, "logits", 3)
    # Source and target of an encoder-decoder may have vocabularies of their own.
    if task == "causal_lm" and isinstance(logits.shape[-1], int) and logits.shape[-1] != size:
        raise BundleError(
            f"config.json: vocab_size is {size}, and the graph gives logits of {logits.shape[-1]}"
        )


def _check_text_graph(task, session):
    check_text_inputs(session, f"it does not fit the task {task}")
    _output(task, session, *_OUTPUTS[task])


def check_text_inputs(session, problem):
    """Check that a text has all that a graph takes.

    Args:
        session: onnxruntime.InferenceSession.
        problem: str, what follows if it has not, for the message.

    Raises:
        BundleError: an input is unknown, or is not of integers (b, s), or there is no input_ids.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    if set(inputs) - _TEXTS or "input_ids" not in inputs:
        raise BundleError(
            f"the graph takes {shown(sorted(inputs))}, but a text gives only "
            f"{', '.join(sorted(_TEXTS))}: {problem}"
        )
    for name, value in inputs.items():
        if not np.issubdtype(declared_dtype(value), np.integer) or len(value.shape) != 2:
            raise BundleError(
                f"the graph takes {name} as {value.type} {tuple(value.shape)}, but a text gives "
                f"integers (batch, length): {problem}"
            )


def _output(task, session, name, rank):
    found = next((value for value in session.get_outputs() if value.name == name), None)
    if found is None:
        raise BundleError(f"the graph has no output {name}, which the task {task} needs")
    if len(found.shape) != rank:
        raise BundleError(
            f"the output {name} has {len(found.shape)} axes, and the task {task} needs {rank}"
        )
    return found
