"""Building, loading and saving models by family."""

import importlib
import warnings

import keras

from keras_seqattn.arguments import path as checked_path
from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.files import read_settled
from keras_seqattn.generation.checkpoint import POSITION_KEYS, position_limit
from keras_seqattn.models.config import complete_keys, read_settings, written_defaults
from keras_seqattn.models.rope import rope_parameters
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.models.sizes import check_model_memory, check_stored_sizes
from keras_seqattn.ports import names
from keras_seqattn.weights.checkpoint import open_checkpoint
from keras_seqattn.weights.directory import write_directory
from keras_seqattn.weights.table import load_weights, stored_tensors

FAMILIES = (
    "bahdanau",
    "bart",
    "bert",
    "big_bird",
    "bigbird_pegasus",
    "led",
    "lfm2",
    "linformer",
    "llama",
    "longformer",
    "marian",
    "mbart",
    "mistral",
    "pegasus",
    "performer",
    "qwen3",
    "qwen3_next",
    "rnn_seq2seq",
    "t5",
    "transfo_xl",
    "transformer",
    "xlnet",
)

# Keys that only we read, which say what the weights of a checkpoint say as well.
_OURS = ("add_pooling_layer", "add_final_logits_bias", "rolling_cache")


def build(family, task=None, **config):
    """Build a freshly initialised model.

    Args:
        family: one of `FAMILIES`.
        task: None takes the family's first: "embedding" for encoders, "causal_lm" for decoders,
            "seq2seq_lm" for both in one.
        config: settings by Keras's names (hidden_dim, num_layers, num_heads, ...) or by those of
            config.json; the rest has the values that transformers gives it.

    Returns:
        A `SequenceModel`.

    Raises:
        ConfigError: the family, the task, a setting or its value is not implemented.

    Example:
        model = build("bert", "sequence_classification", num_layers=2, hidden_dim=64, num_heads=4)
    """
    return assemble(family, task, complete_keys(config, get_family(family)))


def load(path, task=None):
    """Load a model with its weights, one tensor at a time.

    Args:
        path: a Hugging Face directory (config.json and safetensors files) or a .gguf file.
        task: None is the checkpoint's own. Another task keeps the body; a head that the checkpoint
            lacks is then initialised at random, with a warning that names its variables, and heads
            that the task does not have are left out.

    Returns:
        A `SequenceModel`; its `assets` hold the files beside the weights.

    Raises:
        CheckpointError: the files are missing or damaged, or their weights do not fit the model.
        ConfigError: the configuration asks for what is not implemented.
        InputError: `path` is not a path.
    """
    if task is not None and not isinstance(task, str):
        raise ConfigError(f"task must be the name of a task or None, not {shown(task)}.")
    return read_settled(path, lambda: _load(path, task))


def _load(path, task):
    checkpoint = open_checkpoint(path)
    family = get_family(checkpoint.config.get("model_type"), path)
    own = family.task_of(checkpoint.config)
    config = checkpoint.config
    if family.adapt is not None:
        config = family.adapt(config, checkpoint.shapes)
    settings = read_settings(config, family)
    check_stored_sizes(checkpoint, family, settings)
    table = family.table_of(settings)
    task = own if task is None else task
    model = assemble(family.model_type, task, config, checkpoint.assets, blank=True)
    new_head = own is not None and model.task != own
    fresh = load_weights(model, checkpoint, table, new_head)
    if fresh:
        warnings.warn(
            f"{path} was trained for {own}: the head for {model.task} is new and must be trained "
            f"({', '.join(fresh)}).",
            stacklevel=5,
        )
    return model


def save(model, directory):
    """Write a model as a Hugging Face directory, float32, with its assets beside the weights.

    Args:
        model: a `SequenceModel`.
        directory: the directory; made if absent. Of a model that is there, config.json, the weights
            and the assets that are written now are replaced; all other files stay. Another process
            finds the old model or the new one at any time, also if this one is killed.

    Raises:
        CheckpointError: the directory cannot be written, or is an exported bundle.
        ConfigError: it is not a `SequenceModel`.
        InputError: `directory` is not a path.
    """
    if not isinstance(model, SequenceModel):
        raise ConfigError(
            f"save takes a model that load or build made, not {shown(model)}; any other Keras "
            "model has its own save."
        )
    directory = checked_path(directory, "directory")
    family = get_family(model.family)
    prefixed = model.task != "embedding"
    table = family.table_of(read_settings(model.config, family))
    shapes, read = stored_tensors(model, table, prefixed)
    write_directory(directory, stored_config(model), model.assets, shapes, read)


def assemble(family, task, config, assets=None, blank=False, name=None):
    """Build a model from a whole configuration.

    Args:
        family: the `model_type`.
        task: None takes the family's first.
        config: dict as in config.json; keys that change nothing are ignored.
        assets: file name -> bytes.
        blank: start the body from zeros, for weights that are loaded next.
        name: name of the model.

    Returns:
        A `SequenceModel`.

    Raises:
        ConfigError: the family, the task or a value is not implemented.
    """
    declared = get_family(family)
    task = next(iter(declared.architectures)) if task is None else task
    if not isinstance(task, str) or task not in declared.architectures:
        raise ConfigError(
            f"{family} has no task {shown(task)}; it has {', '.join(declared.architectures)}."
        )
    settings = read_settings(config, declared)
    check_model_memory(declared, settings)

    def initializer():
        if blank:
            return keras.initializers.Zeros()
        spread = settings.get("init_std", settings["initializer_range"])
        if spread is None:
            return keras.initializers.GlorotUniform()
        return keras.initializers.RandomNormal(stddev=spread)

    inputs, outputs = declared.build(settings, task, initializer)
    # Keys of other families change nothing here, and would limit texts where a bundle is run.
    foreign = set(POSITION_KEYS) - set(declared.defaults)
    config = {key: value for key, value in config.items() if key not in foreign}
    # Written out, so that whoever reads the configuration needs no table of defaults.
    config = {**written_defaults(declared, settings), **config}
    return SequenceModel(
        inputs,
        outputs,
        family=family,
        task=task,
        config=config,
        assets=assets,
        limits=_limits(inputs, config),
        name=name,
    )


def _limits(inputs, config):
    """The most tokens of each side, as in `Ports.limits`."""
    sides = {names.TOKENS: "decoder", names.SOURCE: "encoder", names.TARGET: "decoder"}
    dimensions = {axis for tensor in inputs.values() for axis in tensor.port.axes}
    limits = {name: position_limit(config, side) for name, side in sides.items()}
    return {name: size for name, size in limits.items() if size and name in dimensions}


def get_family(model_type, where="model"):
    """The declaration of a family.

    Args:
        model_type: as in config.json.
        where: what asks for it, for the message.

    Returns:
        A `Family`.

    Raises:
        ConfigError: it is not implemented.
    """
    if model_type not in FAMILIES:
        raise ConfigError(
            f"{where}: model_type {shown(model_type)} is not implemented; implemented: "
            f"{', '.join(FAMILIES)}."
        )
    return importlib.import_module(f"keras_seqattn.models.{model_type}").FAMILY


def stored_config(model):
    """The configuration as transformers 5 writes it, for float32 weights of this task.

    Args:
        model: a `SequenceModel`.

    Returns:
        dict, the content of config.json.
    """
    family = get_family(model.family)
    config = dict(model.config)
    for key in ("torch_dtype", *_OURS, "rope_scaling", "rope_theta"):
        config.pop(key, None)
    config |= {
        "architectures": [family.architectures[model.task]],
        "model_type": family.model_type,
        "dtype": "float32",
    }
    if "rope_parameters" in family.defaults:
        config["rope_parameters"] = rope_parameters(model.config)
    if model.task == "seq2seq_lm":
        config["is_encoder_decoder"] = True
    labels = config.pop("num_labels", None)
    if labels is not None and not config.get("id2label"):
        config["id2label"] = {str(index): f"LABEL_{index}" for index in range(labels)}
        config["label2id"] = {f"LABEL_{index}": index for index in range(labels)}
    return config
