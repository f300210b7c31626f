"""An encoder-decoder whose encoder reads features of sound: the Transformer over Mel frames."""

import dataclasses

from keras.layers import Dense

from keras_seqattn.models.embedders import Source
from keras_seqattn.models.transformer_like import transformer_like, weight_table
from keras_seqattn.models.values import SIZE
from keras_seqattn.weights import dense_rows


def source(settings, initializer):
    def project(name):
        return Dense(settings["d_model"], kernel_initializer=initializer(), name=name)

    return Source("input_features", (None, settings["num_mel_bins"]), project)


TABLE = weight_table()


def family(name, source):
    return transformer_like(
        name,
        "OutsideSpeechForConditionalGeneration",
        {
            "num_mel_bins": 11,
            "vocab_size": 97,
            "d_model": 24,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 29,
            "decoder_ffn_dim": 31,
            "max_position_embeddings": 64,
            "eos_token_id": 1,
            "decoder_start_token_id": 2,
        },
        table=dataclasses.replace(
            TABLE, body=(*dense_rows("model.encoder.project", "encoder_embedding"), *TABLE.body)
        ),
        fields={"keys": {"num_mel_bins": SIZE}},
        positions="halves",
        source=source,
    )


FAMILY = family("outside_speech", source)
