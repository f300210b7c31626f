"""One layer made callable in each engine: a Keras backend, or onnxruntime on a graph of it."""

import os
import pathlib
import sys

import numpy as np

from attention_study import memory

BACKENDS = ("tensorflow", "jax", "torch")
_ROOT = pathlib.Path(__file__).parents[2]
PORTABLE = "onnxruntime-portable"
TARGETS = {"onnxruntime": "ort", PORTABLE: "portable"}
# What is measured: the forward pass and a training step of the small layer, and the forward pass of
# a layer of the usual width.
FORWARD, TRAINING, WIDE = "forward", "training", "wide"


class Engine:
    """A layer in one engine.

    Args:
        model: functional keras.Model from named inputs to one float (b, t, m).
    """

    def __init__(self, model):
        self.model = model

    def call(self, part, inputs):
        """A function without arguments that runs the layer and returns its result, complete.

        Args:
            part: FORWARD or WIDE, the forward pass; or TRAINING, that and the gradients of the mean
                square of the result in the weights and in x.
            inputs: dict of NumPy arrays.
        """
        import keras

        tensors = {name: keras.ops.convert_to_tensor(x) for name, x in inputs.items()}
        run = self.training if part == TRAINING else self.forward
        return lambda: run(tensors)

    def extra_peak(self, call):
        """Bytes of memory at most that a call needs beyond what is held before it."""
        return memory.extra_peak(call)


class TensorFlow(Engine):
    """Compiled by tf.function, for all lengths but the first in one."""

    def __init__(self, model):
        import tensorflow as tf

        super().__init__(model)
        self.tf = tf
        compiled = tf.function(reduce_retracing=True)
        self.forward = compiled(lambda inputs: model(inputs, training=False))
        self.training = compiled(self._training)

    def _training(self, inputs):
        weights = self.model.trainable_variables
        sources = [variable.value for variable in weights]
        with self.tf.GradientTape() as tape:
            tape.watch(inputs["x"])
            loss = self.tf.reduce_mean(self.tf.square(self.model(inputs, training=True)))
        return tape.gradient(loss, [*sources, inputs["x"]])

    def extra_peak(self, call):
        # It keeps what is freed in a pool of its own, of which it gives an account.
        account = self.tf.config.experimental
        account.reset_memory_stats("CPU:0")
        before = account.get_memory_info("CPU:0")["current"]
        result = call()
        peak = account.get_memory_info("CPU:0")["peak"]
        del result
        return peak - before


class Jax(Engine):
    """Compiled by jax.jit, for each shape anew."""

    def __init__(self, model):
        import jax
        import jax.numpy as jnp

        super().__init__(model)
        variables = (model.trainable_variables, model.non_trainable_variables)
        weights, fixed = ([variable.value for variable in part] for part in variables)

        def result(weights, x, inputs):
            return model.stateless_call(weights, fixed, {**inputs, "x": x})[0]

        def loss(*arguments):
            return jnp.mean(jnp.square(result(*arguments)))

        self._weights, self._block = weights, jax.block_until_ready
        self.forward = self._complete(jax.jit(result))
        self.training = self._complete(jax.jit(jax.grad(loss, argnums=(0, 1))))

    def _complete(self, function):
        def run(inputs):
            others = {name: x for name, x in inputs.items() if name != "x"}
            return self._block(function(self._weights, inputs["x"], others))

        return run


class Torch(Engine):
    """Eager."""

    def __init__(self, model):
        import torch

        super().__init__(model)
        self.torch = torch

    def forward(self, inputs):
        with self.torch.no_grad():
            return self.model(inputs, training=False)

    def training(self, inputs):
        x = inputs["x"].detach().requires_grad_()
        weights = [variable.value for variable in self.model.trainable_variables]
        loss = self.model({**inputs, "x": x}, training=True).square().mean()
        return self.torch.autograd.grad(loss, [*weights, x])


class Onnxruntime:
    """A session on a file, and for memory another that keeps nothing that is free.

    Args:
        path: pathlib.Path of the .onnx file.
        threads: int.
    """

    def __init__(self, path, threads):
        from keras_seqattn.runtime.session import create_session

        self.session = create_session(path, threads=threads)
        self.frugal = create_session(path, threads=threads, spinning=False, arena=False)
        types = {value.name: value.type for value in self.session.get_inputs()}
        self.dtypes = {n: "int64" if "int64" in t else "float32" for n, t in types.items()}

    def call(self, part, inputs):
        """As of `Engine`; there is no training."""
        feeds = {name: x.astype(self.dtypes[name]) for name, x in inputs.items()}
        return lambda session=self.session: session.run(None, feeds)

    def extra_peak(self, call):
        """As of `Engine`."""
        call(self.frugal)
        return memory.extra_peak(lambda: call(self.frugal))


ENGINES = {"tensorflow": TensorFlow, "jax": Jax, "torch": Torch}


def random_inputs(length, width, masks, seed=0):
    """Inputs of one text: x float32 (1, t, m); of each mask, the first token only.

    Args:
        length, width: int t and m.
        masks: names of masks.
        seed: int.
    """
    x = np.random.default_rng(seed).standard_normal((1, length, width), np.float32)
    first = (np.arange(length)[None] == 0).astype("int32")
    return {"x": x, **dict.fromkeys(masks, first)}


def environment(engine, threads):
    """The environment variables of a process for an engine.

    Args:
        engine: str, of BACKENDS or TARGETS.
        threads: int.

    Returns:
        dict.
    """
    paths = [str(_ROOT / "export"), str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **({"KERAS_BACKEND": engine} if engine in BACKENDS else {}),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def command(module, *arguments):
    """The command that runs a module of this package.

    Args:
        module: str, its name.
        *arguments: of its command line.

    Returns:
        list of str.
    """
    return [sys.executable, "-m", f"attention_study.{module}", *map(str, arguments)]
