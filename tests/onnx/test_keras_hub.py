"""Models of keras-hub, which has no export to ONNX of its own, through ours."""

import pytest

from keras_seqattn.onnx import export
from tests.helpers import randomise

keras_hub = pytest.importorskip("keras_hub", reason="needs the extra hub")

SMALL = {"vocabulary_size": 97, "num_layers": 2, "hidden_dim": 24, "intermediate_dim": 40}
BACKBONES = {
    "BertBackbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "DistilBertBackbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "RobertaBackbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "DebertaV3Backbone": SMALL | {"num_heads": 2, "max_sequence_length": 64, "bucket_size": 16},
    "GPT2Backbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "T5Backbone": SMALL | {"num_heads": 2},
    "LlamaBackbone": SMALL | {"num_query_heads": 4, "num_key_value_heads": 2},
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name, tmp_path):
    model = randomise(getattr(keras_hub.models, name)(**BACKBONES[name]), seed=2)
    report = export(model, tmp_path / "model.onnx")
    assert 0 < report.worst <= 1e-4
