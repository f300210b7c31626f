"""Exports in several threads, while others use Keras."""

import concurrent.futures
import threading

import keras
import numpy as np

from keras_seqattn import models, onnx

from . import tiny


def test_exports_at_once_write_what_each_alone_writes(tmp_path):
    made = {name: tiny.decoder(name) for name in ("llama", "lfm2")}
    made |= {name: tiny.encoder(name) for name in ("bert", "longformer-masked")}

    def export(name, folder):
        path = tmp_path / folder / f"{name}.onnx"
        path.parent.mkdir(exist_ok=True)
        onnx.export(made[name], path, verify=False)
        return path.read_bytes()

    alone = {name: export(name, "alone") for name in made}
    with concurrent.futures.ThreadPoolExecutor(len(made)) as pool:
        for _ in range(2):
            together = pool.map(lambda name: export(name, "together"), made)
            assert dict(zip(made, together, strict=True)) == alone


def test_other_threads_use_keras_as_it_is(tmp_path):
    """Models are built, shapes inferred and weights used beside a trace, none of which it sees."""
    model, over = tiny.decoder("llama-deep"), threading.Event()
    config = tiny.BERT | {"num_hidden_layers": 1}
    weight = keras.Variable(np.arange(6.0).reshape(2, 3))

    def use_keras():
        count = 0
        while not over.is_set():
            built = models.build("bert", task="embedding", **config)
            assert built.count_params() == expected
            assert len(built.get_layer("token_embedding")._inbound_nodes) == 1
            assert keras.ops.transpose(weight).shape == (3, 2)
            x = keras.Input((5,))
            assert keras.ops.add(x, 1).shape == (None, 5)
            count += 1
        return count

    expected = models.build("bert", task="embedding", **config).count_params()
    path = tmp_path / "model.onnx"
    onnx.export(model, path, verify=False)
    alone = path.read_bytes()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        using = [pool.submit(use_keras) for _ in range(2)]
        try:
            for _ in range(2):
                onnx.export(model, path, verify=False)
                assert path.read_bytes() == alone
        finally:
            over.set()
        assert all(future.result() for future in using)
