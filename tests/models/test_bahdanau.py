import keras
import numpy as np
import pytest

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.recording import recording
from tests.layers.recurrent_reference import attentive_decoder, gru
from tests.models import recurrent
from tests.models.recurrent import part

SIZES = {"embedding_dim": 11, "hidden_dim": 13, "attention_size": 5, "maxout_size": 7}


def logits(weights, source, target):
    """Bahdanau et al., appendix A: annotations, attentive decoder, maxout, softmax's input."""
    shared = weights.get("token_embedding/embeddings")
    tables = [weights.get(f"{s}_embedding/embeddings", shared) for s in ("encoder", "decoder")]
    x = tables[0][source]
    forward, _ = gru(x, **part(weights, "encoder/forward_gru/gru_cell"))
    backward, first = gru(x[::-1], **part(weights, "encoder/backward_gru/gru_cell"))
    annotations = np.concatenate([forward, backward[::-1]], axis=1)
    state = np.tanh(first @ weights["initial_state/kernel"] + weights["initial_state/bias"])
    x = tables[1][target]
    states, contexts, _, _ = attentive_decoder(x, annotations, state, part(weights, "decoder"))
    deep = np.concatenate([states, x, contexts], axis=1) @ weights["deep_output/dense/kernel"]
    deep = deep + weights["deep_output/dense/bias"]
    return np.maximum(deep[:, 0::2], deep[:, 1::2]) @ weights.get("lm_head/kernel", tables[1].T)


@pytest.fixture(scope="module")
def model():
    return recurrent.build("bahdanau", **SIZES)


def test_definition(model):
    recurrent.check_definition(model, logits)


def test_every_weight_counts(model):
    recurrent.check_mutations(model, logits)


def test_one_embedding_for_everything():
    model = recurrent.build(
        "bahdanau",
        **(SIZES | {"embedding_dim": 7}),
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
    )
    assert sum("embedding" in v.path or "lm_head" in v.path for v in model.weights) == 1
    inputs = recurrent.sample_inputs(5)
    expected = recurrent.expected_logits(logits, recurrent.weights_of(model), inputs)
    actual = recurrent.runner(model)(inputs)["logits"]
    assert recurrent.error(actual, expected) < recurrent.TOLERANCE


def test_training():
    recurrent.check_training("bahdanau", **SIZES)


def test_shapes_and_names(model):
    encoder, step = model.encoder_model(), model.step_model()
    assert list(encoder.output) == ["last_hidden_state", "encoder_keys", "present_states.0.hidden"]
    assert list(step.input) == [
        "encoder_attention_mask",
        "input_ids",
        "encoder_hidden_states",
        "encoder_keys",
        "past_states.0.hidden",
    ]
    assert list(step.output) == ["logits", "present_states.0.hidden"]
    assert encoder.output["encoder_keys"].shape == (None, None, 5)
    assert step.input["encoder_hidden_states"].shape == (None, None, 26)
    assert model.output["logits"].shape == (None, None, recurrent.VOCABULARY)


def test_the_scores_of_every_target(model):
    inputs = recurrent.sample_inputs(5)
    with recording() as records:
        model(inputs)
    ((layer, scores),) = records
    scores = keras.ops.convert_to_numpy(scores)
    assert layer.name == "decoder" and scores.shape == (4, 7, 5)
    np.testing.assert_allclose(scores.sum(-1), 1.0, rtol=1e-6)
    padded = np.broadcast_to(inputs["attention_mask"][:, None] == 0, scores.shape)
    assert not scores[padded].any()


def test_tied_logits_need_the_width_of_the_embedding():
    with pytest.raises(ConfigError, match="embedding_size=11, not 7"):
        recurrent.build("bahdanau", **SIZES, tie_word_embeddings=True)
