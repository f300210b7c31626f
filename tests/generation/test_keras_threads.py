"""`keras_seqattn.generate` in threads and in turns, on the backend of the run."""

import concurrent.futures

import numpy as np
import pytest

import keras_seqattn
from keras_seqattn.generation import Generator

from ..onnx import tiny

ROWS = [[7, 11, 60, 9, 23], [8, 8], [8, 8, 30], [5, 6, 7, 8, 9, 10, 11]]
SETTINGS = [{}, {"do_sample": True, "seed": 3}, {"num_beams": 2}, {"repetition_penalty": 1.3}]


@pytest.fixture(scope="module", params=["llama", "lfm2", "bart"])
def model(request):
    return (tiny.decoder if request.param in tiny.DECODERS else tiny.seq2seq)(request.param)


def test_threads_get_what_one_alone_gets(model):
    """The first calls, in which the step is made and compiled, are made at once."""

    def call(number):
        row, settings = ROWS[number % 4], SETTINGS[number % 4]
        return keras_seqattn.generate(
            model, row, max_new_tokens=5, min_new_tokens=5, eos_token_id=2, **settings
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(8)))
    assert results == [call(number) for number in range(8)]


def test_interleaved_streams(model):
    keras_seqattn.generate(model, [7], max_new_tokens=1)
    generator = Generator(model._decoders, defaults={"decoder_start_token_id": 0})
    wanted = [generator.generate(row, max_new_tokens=5) for row in ROWS]
    streams = [generator.stream(row, max_new_tokens=5) for row in ROWS]
    assert np.array_equal(list(zip(*streams, strict=True)), np.transpose(wanted))
