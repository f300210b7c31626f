"""The files beside the graphs of a bundle: configuration, generation settings, tokenizer."""

import contextlib
import json
import os

from keras_seqattn.errors import BundleError, ConfigError, ExportError, InputError
from keras_seqattn.generation.checkpoint import checkpoint_defaults
from keras_seqattn.json_objects import parse_object, read_small_file
from keras_seqattn.models.api import stored_config
from keras_seqattn.models.hub_decoder import HubDecoder
from keras_seqattn.models.hub_seq2seq import HubSeq2Seq
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.onnx import genai
from keras_seqattn.onnx.data_files import graphs_with_data
from keras_seqattn.runtime.rehearsal import check_companions
from keras_seqattn.tasks import task_of_model

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_SETTINGS = "generation_config.json"
# The key where transformers.js reads the number of files of weights of each graph.
_JS, _JS_DATA = "transformers.js_config", "use_external_data_format"


def companion_files(model, tokenizer):
    """The files of a model's bundle that do not depend on its graphs.

    Args:
        model: the Keras model.
        tokenizer: None, or a folder whose tokenizer files replace those of the model.

    Returns:
        dict of relative name -> bytes.

    Raises:
        ExportError: the folder has no tokenizer.json.
    """
    files = dict(getattr(model, "assets", None) or {})
    if tokenizer is not None:
        files.update(_tokenizer_files(tokenizer))
    if isinstance(model, SequenceModel):
        config = stored_config(model)
    else:
        config = model.config if isinstance(model, HubDecoder | HubSeq2Seq) else {}
    files["config.json"] = _json(config)
    if task_of_model(model).generates:
        # Older checkpoints keep these settings in config.json. Other runtimes do not read them
        # there.
        generation = checkpoint_defaults(config, {}) | genai.special_tokens(config)
        files.setdefault(_SETTINGS, _json(generation))
    return files


def check_files(files, task):
    """Parse and try the files beside the graphs, as in `keras_seqattn.runtime.rehearsal`.

    Args:
        files: dict of relative name -> bytes.
        task: str, or None.

    Raises:
        ExportError: a file cannot be used. The message names it.
    """
    with written_only_if_usable():
        generation = parse_object(files.get(_SETTINGS, b"{}"), _SETTINGS)
        check_companions(task, json.loads(files["config.json"]), generation, files)


@contextlib.contextmanager
def written_only_if_usable():
    """Turn a BundleError of the block into an ExportError that says what to do."""
    try:
        yield
    except BundleError as error:
        raise ExportError(
            f"nothing was written: {error}. If a file is wrong, correct or remove it in the "
            "checkpoint (model.assets holds its content), or give a folder with the right "
            "tokenizer files with tokenizer="
        ) from error


def write_companions(files, folder, decoder):
    """Write the files, and genai_config.json if onnxruntime-genai can run the graph.

    Args:
        files: dict of relative name -> bytes.
        folder: the folder of the bundle.
        decoder: the `onnx_ir.Model` of a decoder, or None.
    """
    config = json.loads(files["config.json"])
    files = files | {"config.json": _json(_with_data_files(config, graphs_with_data(folder)))}
    if decoder is not None:
        # Settings that are not valid have been refused before. Without verification, they are
        # left out.
        with contextlib.suppress(BundleError, ConfigError, InputError):
            generation = parse_object(files[_SETTINGS], _SETTINGS)
            other = genai.config(config, generation, decoder.graph)
            if other is not None:
                files["genai_config.json"] = _json(other)
    for name, content in sorted(files.items()):
        full = os.path.join(folder, name)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            file.write(content)


def _with_data_files(config, graphs):
    """The configuration with a list of the graphs that have a file of weights, for browsers."""
    settings = config.get(_JS)
    settings = dict(settings) if isinstance(settings, dict) else {}
    settings.pop(_JS_DATA, None)
    if graphs:
        settings[_JS_DATA] = dict.fromkeys(graphs, 1)
    rest = {key: value for key, value in config.items() if key != _JS}
    return rest | ({_JS: settings} if settings else {})


def _tokenizer_files(folder):
    names = [name for name in _TOKENIZER if os.path.lexists(os.path.join(folder, name))]
    if "tokenizer.json" not in names:
        raise ExportError(f"no tokenizer.json in {folder}")
    return {name: read_small_file(os.path.join(folder, name), ExportError) for name in names}


def _json(content):
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
