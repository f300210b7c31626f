"""The proof that a file computes what the Keras model computes: both run, compared."""

import os

import onnxruntime

from keras_seqattn.errors import BundleError
from keras_seqattn.onnx.arguments import check_lengths, check_model, check_progress, checked_path
from keras_seqattn.onnx.comparison import Comparison
from keras_seqattn.onnx.graph import DECODER, ENCODER
from keras_seqattn.onnx.refusals import reason
from keras_seqattn.onnx.report import TOLERANCES, Report
from keras_seqattn.onnx.seq2seq_comparison import Seq2SeqComparison


def verify(path, model, *, lengths=None, progress=None):
    """Run an exported file or bundle against the Keras model it came from.

    Batch sizes 1 and 3 and several lengths, length 1 included, with padding on either side; for
    decoders also a prefill with cached steps against the full pass, and greedy tokens. Where a
    model does not take a length, the next one that it takes is compared; the cases say which.

    NaN and infinities agree where both have the same. If Keras gives nothing else, nothing is
    proven and the report is not ok.

    Args:
        path: a bundle folder or an .onnx file.
        model: the Keras model.
        lengths: of the inputs (of an encoder-decoder the sources) of the full passes; None chooses
            some up to 130. Give longer ones to models of long inputs.
        progress: called with (done, total) after each comparison.

    Returns:
        Report.

    Raises:
        BundleError: if onnxruntime cannot load or run the file, or it is of another model.
        ExportError: if the model is none, or a shape in the file is not that of Keras.
        InputError: if a length is more than the model takes, or it takes none.
    """
    path = checked_path(path)
    check_model(model)
    check_lengths(lengths)
    check_progress(progress)
    names = [ENCODER, DECODER] if getattr(model, "task", None) == "seq2seq_lm" else ["model"]
    sessions = [_session(path, name) for name in names]
    properties = sessions[0].get_modelmeta().custom_metadata_map
    precision = properties.get("keras_seqattn.precision", "fp32")
    if precision not in TOLERANCES:
        raise BundleError(f"the file is of the precision {precision!r}, which is unknown")
    make = Comparison if len(sessions) == 1 else Seq2SeqComparison
    jobs = list(make(model, *sessions, precision, lengths).jobs())
    cases = []
    for i, job in enumerate(jobs):
        cases.append(job())
        if progress is not None:
            progress(i + 1, len(jobs))
    return Report(precision, TOLERANCES[precision], cases)


def _session(path, name):
    file = os.path.join(path, f"{name}.onnx") if os.path.isdir(path) else path
    options = onnxruntime.SessionOptions()
    # Its exceptions say what it would print.
    options.log_severity_level = 4
    # Threads that wait for work by spinning would take it from Keras's and the other session's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"onnxruntime cannot load {file}: {reason(error)}") from error
