"""The proof that a file computes what the Keras model computes: both run, compared."""

import os

from keras_seqattn.errors import BundleError
from keras_seqattn.onnx.arguments import check_lengths, check_model, check_progress, checked_path
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


def verify(path, model, *, lengths=None, progress=None, providers=(_CPU,)):
    """Run an exported file or bundle against the Keras model it came from.

    Batch sizes 1 and 3 and several lengths, length 1 included, with padding on either side; for
    decoders also a prefill with cached steps against the full pass, and greedy tokens. Where a
    model does not take a length, the next one that it takes is compared; the cases say which. A
    bundle is opened as `keras_seqattn.runtime.load` does, and all that is in it is used once.

    NaN and infinities agree where both have the same. If Keras gives nothing else, nothing is
    proven and the report is not ok.

    Args:
        path: a bundle folder or an .onnx file.
        model: the Keras model.
        lengths: of the inputs (of an encoder-decoder the sources) of the full passes; None chooses
            some up to 130. Give longer ones to models of long inputs.
        progress: called with (done, total) after each comparison.
        providers: list of onnxruntime execution providers to run the file with.

    Returns:
        Report.

    Raises:
        BundleError: if onnxruntime cannot load or run the file, it is of another model, or a file
            of the bundle cannot be used.
        ExportError: if `model` is not a Keras model, or a shape in the file differs from Keras.
        InputError: if a length is more than the model takes, or it takes none, or a provider is not
            available.
    """
    path = checked_path(path)
    check_model(model)
    check_lengths(lengths)
    check_progress(progress)
    bundle = open_bundle(path) if os.path.isdir(path) else None
    files = [os.path.join(path, name) for name in bundle.graphs] if bundle else [path]
    # Threads that wait for work by spinning would take it from Keras's and the other session's.
    sessions = [create_session(file, providers, spinning=False) for file in files]
    if len(sessions) != len(task_of_model(model).graphs):
        raise BundleError(f"the bundle is of another model: it has {len(sessions)} graphs")
    # The bundle is the one that the runtime would load, over the same sessions.
    loaded = BundleModel(bundle, *sessions) if bundle else None
    properties = sessions[0].get_modelmeta().custom_metadata_map
    precision = properties.get("keras_seqattn.precision", "fp32")
    if precision not in PRECISIONS:
        raise BundleError(
            f"the file is of the precision {precision!r}, which is unknown; one of another program "
            "must be registered here as well (keras_seqattn.onnx.register_precision)"
        )
    judgement = judged_by(PRECISIONS[precision], model)
    make = Comparison if len(sessions) == 1 else Seq2SeqComparison
    jobs = list(make(model, *sessions, judgement, lengths).jobs())
    cases = []
    for i, job in enumerate(jobs):
        cases.append(job())
        if progress is not None:
            progress(i + 1, len(jobs))
    rehearsed = rehearse(loaded) if loaded else []
    joined = properties.get(EQUAL_LENGTHS, "")
    return Report(precision, judgement.tolerance, cases, rehearsed, joined, judgement)
