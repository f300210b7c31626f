"""Building, loading and saving models by family."""

import warnings

from keras_seqattn.arguments import path as checked_path
from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.files import read_settled
from keras_seqattn.models.config import complete_keys, read_settings
from keras_seqattn.models.registry import get_family
from keras_seqattn.models.rope import rope_parameters
from keras_seqattn.models.sequence_model import SequenceModel, assemble
from keras_seqattn.models.sizes import check_stored_sizes
from keras_seqattn.weights.directory import write_directory
from keras_seqattn.weights.formats import open_checkpoint
from keras_seqattn.weights.table import load_weights, stored_tensors


def build(family, task=None, **config):
    """Build a freshly initialised model.

    Args:
        family: the `model_type`: one of `FAMILIES`, or a registered family.
        task: None takes the first task of the family: "embedding" for encoders, "causal_lm" for
            decoders, "seq2seq_lm" for encoder-decoders.
        config: settings with the names of Keras (hidden_dim, num_layers, num_heads, ...) or of
            config.json. Other settings have the defaults of transformers.

    Returns:
        A `SequenceModel`.

    Raises:
        ConfigError: the family, the task, a setting or a value is not implemented.

    Example:
        model = build("bert", "sequence_classification", num_layers=2, hidden_dim=64, num_heads=4)
    """
    return assemble(family, task, complete_keys(config, get_family(family)))


def load(path, task=None):
    """Load a model with its weights, one tensor at a time.

    Args:
        path: a Hugging Face directory (config.json and safetensors files) or a .gguf file.
        task: None takes the task of the checkpoint. With another task, the body is loaded. If the
            checkpoint has no head for the task, the head is initialised at random, and a warning
            names its variables. Heads of other tasks are left out.

    Returns:
        A `SequenceModel`; its `assets` hold the files beside the weights.

    Raises:
        CheckpointError: the files are missing or damaged, or their weights do not fit the model.
        ConfigError: the configuration asks for something that is not implemented.
        InputError: `path` is not a path.
    """
    if task is not None and not isinstance(task, str):
        raise ConfigError(f"task must be the name of a task or None, not {shown(task)}.")
    return read_settled(path, lambda: _load(path, task))


def _load(path, task):
    checkpoint = open_checkpoint(path)
    family = get_family(checkpoint.config.get("model_type"), path)
    config = checkpoint.config
    if family.adapt is not None:
        config = family.adapt(config, {*checkpoint.shapes, *checkpoint.aliases})
    own = family.task_of(config)
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
    """Write a model as a Hugging Face directory: float32 weights, and the assets beside them.

    Args:
        model: a `SequenceModel`.
        directory: the directory, which is made if it does not exist. If it holds a model, its
            config.json, its weights and the assets that are written now are replaced, and all other
            files stay. At any time, another process finds the old model or the new one, even if
            this process is killed.

    Raises:
        CheckpointError: the directory cannot be written, or it is an exported bundle.
        ConfigError: the model is not a `SequenceModel`.
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


def stored_config(model):
    """The configuration for float32 weights of this task, as transformers 5 writes it.

    Args:
        model: a `SequenceModel`.

    Returns:
        dict, the content of config.json.
    """
    family = get_family(model.family)
    config = dict(model.config)
    for key in ("torch_dtype", *family.unsaved, "rope_scaling", "rope_theta"):
        config.pop(key, None)
    config |= {
        "architectures": [family.architectures[model.task]],
        "model_type": family.model_type,
        "dtype": "float32",
    }
    if "rope_parameters" in family.defaults:
        config["rope_parameters"] = rope_parameters(model.config)
    if family.encoder is not None:
        config["is_encoder_decoder"] = True
    labels = config.pop("num_labels", None)
    if labels is not None and not config.get("id2label"):
        config["id2label"] = {str(index): f"LABEL_{index}" for index in range(labels)}
        config["label2id"] = {f"LABEL_{index}": index for index in range(labels)}
    return config
