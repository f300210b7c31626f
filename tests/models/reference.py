"""Tiny models of transformers, with weights that make mistakes visible, against ours."""

import json

import keras
import numpy as np
import torch
import transformers

from keras_seqattn import models
from keras_seqattn.models.compiled import compiled

# Float32 rounding over two layers of these widths stays below 1e-5; a wrong formula shows as 1e-2
# or more.
TOLERANCE = 2e-4


def make_reference(architecture, config, seed=0):
    """A model of transformers, re-randomised: near-zero weights would hide most mistakes.

    Args:
        architecture: name of the class.
        config: a configuration of transformers.
        seed: of the weights.

    Returns:
        The model, float32, in evaluation mode.
    """
    return randomise_reference(getattr(transformers, architecture)(config), seed)


def randomise_reference(model, seed=0):
    """A torch module in evaluation mode, its weights redrawn as those of `make_reference`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
        for parameter in model.parameters():
            # Sinusoids are parameters that nobody trains.
            if not parameter.requires_grad:
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(1.5 / parameter.shape[-1] ** 0.5 * noise)
    return model.eval()


def save_reference(model, directory, **changes):
    """Write a reference as a Hugging Face directory, with changes to its config.json."""
    model.save_pretrained(directory)
    if changes:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


def sample_inputs(model, batch=3, length=11, padding=None, seed=0):
    """Random inputs of a `SequenceModel`; targets have 7 tokens, or 1 if the sources have 1.

    Args:
        model: the model; its inputs say what is needed.
        batch, length: sizes.
        padding: None, "left" or "right"; the rows have 0, 1, 6, 9, ... padded positions.
        seed: of the ids.

    Returns:
        dict of int32 arrays.
    """
    rng = np.random.default_rng(seed)
    mask = np.ones((batch, length), "int32")
    for row in range(batch if padding else 0):
        count = row if row < 2 else 3 * row
        mask[row] = np.arange(length) >= count
        if padding == "right":
            mask[row] = mask[row, ::-1]
    vocabulary = model.config["vocab_size"]
    inputs = {
        "input_ids": rng.integers(1, vocabulary, (batch, length)) * mask,
        "attention_mask": mask,
    }
    if "token_type_ids" in model.input:
        inputs["token_type_ids"] = rng.integers(0, model.config["type_vocab_size"], (batch, length))
    if "global_attention_mask" in model.input:
        inputs["global_attention_mask"] = rng.integers(0, 4, (batch, length)) == 0
    if "decoder_input_ids" in model.input:
        vocabulary = model.config.get("decoder_vocab_size") or vocabulary
        inputs["decoder_input_ids"] = rng.integers(1, vocabulary, (batch, min(length, 7)))
    return {name: value.astype("int32") for name, value in inputs.items()}


def run(model, inputs):
    """Outputs of a Keras model as NumPy arrays."""
    # JAX would compile each operation for each shape on its own.
    if keras.backend.backend() == "jax":
        if not hasattr(model, "_compiled"):
            model._compiled = compiled(model)
        outputs = model._compiled({}, inputs)
    else:
        outputs = model(inputs, training=False)
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def run_reference(reference, inputs):
    """Outputs of transformers as NumPy arrays; decoders are given the positions of real tokens."""
    tensors = {name: torch.tensor(value).long() for name, value in inputs.items()}
    if "decoder_input_ids" in inputs:
        with torch.no_grad():
            return {"logits": reference(**tensors, use_cache=False).logits.numpy()}
    if "token_type_ids" not in inputs:
        tensors["position_ids"] = (tensors["attention_mask"].cumsum(-1) - 1).clip(min=0)
        tensors["use_cache"] = False
    with torch.no_grad():
        outputs = reference(**tensors)
    return {name: value.numpy() for name, value in outputs.items()}


def relative_error(ours, theirs, mask):
    """The largest difference over the largest value, at real tokens where there is a token axis."""
    assert set(ours) == set(theirs)
    errors = []
    for name, value in theirs.items():
        assert ours[name].shape == value.shape
        per_token = value.shape[:2] == mask.shape
        weight = mask.reshape(mask.shape + (1,) * (value.ndim - 2)) if per_token else 1
        errors.append(np.abs((ours[name] - value) * weight).max() / np.abs(value * weight).max())
    return max(errors)


def check_parity(reference, directory, task=None):
    """Load what the reference saved and compare at length 1, unpadded and padded on either side."""
    model = models.load(directory, task)
    for length, padding in ((1, None), (11, None), (11, "left"), (11, "right")):
        inputs = sample_inputs(model, length=length, padding=padding)
        theirs = run_reference(reference, inputs)
        error = relative_error(run(model, inputs), theirs, inputs["attention_mask"])
        assert error < TOLERANCE, (length, padding, error)
    return model


def check_round_trip(model, reference, directory):
    """Save ours and let transformers load it: every weight must come back bit by bit."""
    models.save(model, directory)
    again, info = type(reference).from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert again.config.to_dict().keys() >= {"model_type"}
    expected, found = reference.state_dict(), again.state_dict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name)
    inputs = sample_inputs(model, padding="right")
    theirs, ours = run_reference(reference, inputs), run_reference(again, inputs)
    assert relative_error(ours, theirs, inputs["attention_mask"]) < 1e-6  # same weights, same code


def parity_error(reference, directory, length=11):
    """The error of a model that was broken on purpose."""
    model = models.load(directory)
    inputs = sample_inputs(model, length=length)
    theirs = run_reference(reference, inputs)
    return relative_error(run(model, inputs), theirs, inputs["attention_mask"])
