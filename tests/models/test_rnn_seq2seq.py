import pytest

from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, ConfigError
from tests.layers.recurrent_reference import lstm
from tests.models import recurrent
from tests.models.recurrent import part

SIZES = {"embedding_dim": 11, "hidden_dim": 13, "num_layers": 2}


def logits(weights, source, target, reverse=True):
    """Sutskever et al.: the last states of the encoder start the decoder."""
    shared = weights.get("token_embedding/embeddings")
    tables = [weights.get(f"{s}_embedding/embeddings", shared) for s in ("encoder", "decoder")]
    x, states = tables[0][source[::-1] if reverse else source], []
    for index in range(2):
        x, state = lstm(x, **part(weights, f"encoder_layers_{index}/lstm_cell"))
        states.append(state)
    x = tables[1][target]
    for index, state in enumerate(states):
        x, _ = lstm(x, **part(weights, f"decoder_layers_{index}/lstm_cell"), state=state)
    return x @ weights.get("lm_head/kernel", tables[1].T)


@pytest.fixture(scope="module")
def model():
    return recurrent.build("rnn_seq2seq", **SIZES)


def test_definition(model):
    recurrent.check_definition(model, logits)


def test_every_weight_counts(model):
    recurrent.check_mutations(model, logits)


def test_sources_that_are_not_reversed(model):
    inputs = recurrent.sample_inputs(5)
    straight = recurrent.build("rnn_seq2seq", **SIZES, reverse_source=False)
    actual = recurrent.runner(straight)(inputs)["logits"]
    weights = recurrent.weights_of(straight)
    for reverse, agrees in ((False, True), (True, False)):
        expected = recurrent.expected_logits(
            lambda *row, reverse=reverse: logits(*row, reverse=reverse), weights, inputs
        )
        limit = recurrent.TOLERANCE * (1 if agrees else 10)
        assert (recurrent.error(actual, expected) < limit) == agrees


def test_one_embedding_for_everything(tmp_path):
    model = recurrent.build(
        "rnn_seq2seq",
        **(SIZES | {"embedding_dim": 13}),
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
    )
    assert sum("embedding" in v.path or "lm_head" in v.path for v in model.weights) == 1
    recurrent.check_saving(model, tmp_path)
    inputs = recurrent.sample_inputs(5)
    expected = recurrent.expected_logits(logits, recurrent.weights_of(model), inputs)
    actual = recurrent.runner(model)(inputs)["logits"]
    assert recurrent.error(actual, expected) < recurrent.TOLERANCE


def test_training():
    recurrent.check_training("rnn_seq2seq", **SIZES)


def test_shapes_and_names(model):
    encoder, step = model.encoder_model(), model.step_model()
    states = [f"{index}.{part}" for index in range(2) for part in ("hidden", "cell")]
    assert list(encoder.output) == [f"present_states.{name}" for name in states]
    assert list(step.input) == ["input_ids", *(f"past_states.{name}" for name in states)]
    assert list(step.output) == ["logits", *(f"present_states.{name}" for name in states)]
    assert step.input["past_states.1.cell"].shape == (None, 13)
    assert model.output["logits"].shape == (None, None, recurrent.VOCABULARY)


def test_what_does_not_fit_is_named(model, tmp_path):
    with pytest.raises(ConfigError, match="embedding_size=11, not 13"):
        recurrent.build("rnn_seq2seq", **SIZES, tie_word_embeddings=True)
    models.save(model, tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(
        config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    with pytest.raises(CheckpointError, match="num_hidden_layers=3, but the weights have 2"):
        models.load(tmp_path)
