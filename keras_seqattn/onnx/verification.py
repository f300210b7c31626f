"""Verifies that a file computes the same as the Keras model. Both run, and results are compared."""

import os

from keras_seqattn.errors import BundleError
from keras_seqattn.onnx.arguments import (
    adopted_model,
    check_lengths,
    check_model,
    check_progress,
    checked_path,
)
from keras_seqattn.onnx.called_model import CalledModel, with_inputs
from keras_seqattn.onnx.comparison import Comparison
from keras_seqattn.onnx.graph import EQUAL_LENGTHS
from keras_seqattn.onnx.judgement import judged_by
from keras_seqattn.onnx.precisions import PRECISIONS
from keras_seqattn.onnx.report import Report
from keras_seqattn.onnx.seq2seq_comparison import Seq2SeqComparison
from keras_seqattn.runtime.bundle import open_bundle
from keras_seqattn.runtime.model import BundleModel
from keras_seqattn.runtime.rehearsal import rehearse
from keras_seqattn.runtime.session import create_session
from keras_seqattn.tasks import task_of_model

_CPU = "CPUExecutionProvider"


def verify(path, model, *, lengths=None, progress=None, providers=(_CPU,), input_signature=None):
    """Compare an exported file or bundle with the Keras model from which it was made.

    The cases are batch sizes 1 and 3 and several lengths, including length 1, with padding on
    either side. Each dynamic dimension also has a size of its own (1, 2 or 7), and a row is without
    any key where there is a mask. Integers that no port limits are drawn over the widest range on
    which the model runs. What a model does not accept is left out, and the report says so; of
    lengths, the next accepted one is compared. For decoders there are also a prefill with cached
    steps, compared with the full pass, and greedy tokens. A bundle is opened as in
    `keras_seqattn.runtime.load`, and all its parts are used once.

    Of numbers that are equal, or differ by rounding, Keras and onnxruntime may take either as the
    largest: both indices are right.
    NaN and infinities are equal if both sides have the same. If Keras gives nothing else, nothing
    is proven, and the report is not ok.

    Args:
        path: a bundle folder or an .onnx file.
        model: the Keras model.
        lengths: lengths of the inputs (for an encoder-decoder, of the sources) of the full passes.
            None chooses some up to 130. Give longer ones for models of long inputs.
        progress: None, or a function that is called with (done, total) after each comparison.
        input_signature: as for `export`.
        providers: list of onnxruntime execution providers that run the file.

    Returns:
        Report.

    Raises:
        BundleError: onnxruntime cannot load or run the file, the file is of another model, or a
            file of the bundle cannot be used.
        ExportError: `model` is not a Keras model, or a shape in the file differs from Keras.
        InputError: a length is longer than the maximum of the model, the model accepts no length,
            or a provider is not available.
    """
    path = checked_path(path)
    check_model(model)
    check_lengths(lengths)
    check_progress(progress)
    is_folder = os.path.isdir(path)
    model = with_inputs(adopted_model(model) if is_folder else model, input_signature)
    bundle = open_bundle(path) if is_folder else None
    files = [os.path.join(path, name) for name in bundle.graphs] if bundle else [path]
    # Threads that wait busily would take time from Keras and from the other session.
    sessions = [create_session(file, providers, spinning=False) for file in files]
    if len(sessions) != len(task_of_model(model).graphs):
        raise BundleError(f"the bundle is of another model: it has {len(sessions)} graphs")
    if isinstance(model, CalledModel):
        # Keras does not keep the types of all inputs, and the file has them.
        integers = [port.name for port in sessions[0].ports.inputs if port.is_integer]
        model.use_integers([name for name in integers if name in model.input])
    # The bundle is opened like in the runtime, with the same sessions.
    loaded = BundleModel(bundle, *sessions) if bundle else None
    properties = sessions[0].get_modelmeta().custom_metadata_map
    precision = properties.get("keras_seqattn.precision", "fp32")
    if precision not in PRECISIONS:
        raise BundleError(
            f"the file has the precision {precision!r}, which is unknown here; if another program "
            "defined it, register it here, too (keras_seqattn.onnx.register_precision)"
        )
    judgement = judged_by(PRECISIONS[precision], model)
    make = Comparison if len(sessions) == 1 else Seq2SeqComparison
    comparison = make(model, *sessions, judgement, lengths)
    jobs = list(comparison.jobs())
    cases = []
    for i, job in enumerate(jobs):
        if (case := job()) is not None:
            cases.append(case)
        if progress is not None:
            progress(i + 1, len(jobs))
    rehearsed = rehearse(loaded) if loaded else []
    joined = properties.get(EQUAL_LENGTHS, "")
    return Report(
        precision, judgement.tolerance, cases, rehearsed, joined, judgement, comparison.left_out
    )
