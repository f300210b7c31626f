"""The inputs and outputs that the graphs of each task must have. They are checked when loaded."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import BundleError
from keras_seqattn.runtime.graph_ports import numpy_dtype
from keras_seqattn.tasks import CAUSAL_LM, EMBEDDING, SEQ2SEQ_LM, find_task

# The roles of the inputs that a text gives. In models with global tokens, the first one is global.
_OF_TEXTS = ("tokens", "mask", "token_types", "global_mask")


def task_of(metadata, config, graphs):
    """The `Task` of a bundle, from the metadata of the graph, or else guessed from its ports.

    Args:
        metadata: dict of the metadata of the graph.
        config: dict of config.json.
        graphs: list of the `Ports` of each graph.

    Raises:
        BundleError: the graphs do not fit the task or the configuration.
    """
    name = metadata.get("keras_seqattn.task")
    task = find_task(name) if name else SEQ2SEQ_LM if len(graphs) > 1 else None
    if task is not None:
        _check_graphs(task, config, graphs)
        return task
    try:
        task = _guess(graphs[0])
        _check_graphs(task, config, graphs)
        return task
    except BundleError:  # an arbitrary graph may have such names
        return find_task(None)


def _guess(ports):
    if ports.pasts:
        return CAUSAL_LM
    return EMBEDDING if ports.given("hidden_states") else find_task(None)


def _check_graphs(task, config, graphs):
    if len(graphs) != len(task.graphs):
        raise BundleError(
            f"the bundle has {len(graphs)} graphs, which does not fit its task {task.name}"
        )
    if task.generates:
        _check_vocabulary(task, config, graphs[-1])
    if task.output is not None:
        # A graph of pictures or sound has the same tasks: `run` takes what it reads.
        if not graphs[0].of_role("pixels", "features"):
            check_text_inputs(graphs[0], f"it does not fit the task {task.name}")
        _output(task, graphs[0], *task.output)


def _check_vocabulary(task, config, decoder):
    size = config.get("vocab_size")
    if size is None:
        raise BundleError(f"config.json has no vocab_size, which the task {task.name} needs")
    known = _output(task, decoder, "logits", 3).axes[-1]
    # The source and the target of an encoder-decoder may have different vocabularies.
    if not task.reads_source and isinstance(known, int) and known != size:
        raise BundleError(
            f"config.json: vocab_size is {size}, and the graph gives logits of {known}"
        )


def is_of_texts(ports):
    """Whether a text gives all inputs of a graph: integers (b, s) with known roles, with tokens."""
    return ports.first("tokens") is not None and all(
        port.role in _OF_TEXTS and len(port.axes) == 2 and _is_integer(port)
        for port in ports.inputs
    )


def check_text_inputs(ports, problem):
    """Check that a text gives all inputs of a graph.

    Args:
        ports: `Ports` of the graph.
        problem: str, the consequence if it does not, for the message.

    Raises:
        BundleError: an input is unknown, or is not integers (b, s), or there are no tokens.
    """
    others = [port for port in ports.inputs if port.role not in _OF_TEXTS]
    if others or ports.first("tokens") is None:
        names = sorted(port.name for port in ports.inputs)
        raise BundleError(
            f"the graph takes {shown(names)}, but a text gives only ids of tokens, their mask, "
            f"token types and a mask of global tokens: {problem}"
        )
    for port in ports.inputs:
        if not _is_integer(port) or len(port.axes) != 2:
            raise BundleError(
                f"the graph takes {port.name} as {port.dtype} {port.axes}, but a text gives "
                f"integers (batch, length): {problem}"
            )


def _is_integer(port):
    return np.issubdtype(numpy_dtype(port), np.integer)


def _output(task, ports, role, rank):
    found = ports.given(role)
    if found is None:
        raise BundleError(
            f"the graph has no output of the role {role}, which the task {task.name} needs"
        )
    if len(found.axes) != rank:
        raise BundleError(
            f"the output {found.name} has {len(found.axes)} axes, and the task {task.name} needs "
            f"{rank}"
        )
    return found
