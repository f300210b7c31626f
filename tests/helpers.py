"""What all tests share: weights that can fail a test, gradients, and the contract of a layer."""

import functools

import keras
import numpy as np
from keras import ops, tree


def to_numpy(structure):
    """The structure with every tensor as a NumPy array (float32 for half precision)."""

    def convert(x):
        if keras.backend.is_float_dtype(x.dtype):
            x = ops.cast(x, "float32")
        return ops.convert_to_numpy(x)

    return tree.map_structure(convert, structure)


def randomise(model_or_layer, seed=0):
    """Fills the weights so that every term counts: N(0, 1.5 / sqrt(fan_in)), vectors + N(0, 0.3).

    Args:
        model_or_layer: a built Keras model or layer.
        seed: of the generator.

    Returns:
        The model or layer itself.
    """
    rng = np.random.default_rng(seed)
    for variable in model_or_layer.weights:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        noise = rng.standard_normal(variable.shape)
        if len(variable.shape) < 2:
            variable.assign(to_numpy(variable.value) + 0.3 * noise)
        else:
            fan_in = variable.shape[-1 if "embeddings" in variable.name else -2]
            variable.assign(1.5 / fan_in**0.5 * noise)
    return model_or_layer


def gradients(function, *arrays):
    """The gradients of a scalar function in its array arguments, on the current backend."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # As a whole: each operation that is new to JAX costs a compilation.
        grads = jax.jit(jax.grad(function, argnums=tuple(range(len(arrays)))))(*arrays)
    elif backend == "torch":
        tensors = [ops.convert_to_tensor(x).detach().requires_grad_() for x in arrays]
        function(*tensors).backward()
        grads = [x.grad for x in tensors]
    else:
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(x) for x in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = function(*tensors)
        grads = tape.gradient(result, tensors)
    return [ops.convert_to_numpy(x) for x in grads]


def check_slopes(function, definition, arrays, tolerance, step=1e-5):
    """Gradients along random directions against central differences of the definition.

    Args:
        function: of the arrays by their names, a scalar on the current backend.
        definition: of the same arrays in float64, the same scalar in NumPy.
        arrays: dict of float32 arrays.
        tolerance: largest error, relative to the norm of the gradient and one more.
        step: of the differences.
    """
    random = np.random.default_rng(3)
    wide = {name: x.astype("float64") for name, x in arrays.items()}
    found = gradients(
        lambda *values: function(**dict(zip(arrays, values, strict=True))), *arrays.values()
    )
    for name, gradient in zip(arrays, found, strict=True):
        assert np.isfinite(gradient).all(), name
        direction = random.standard_normal(gradient.shape)
        ends = [definition(**wide | {name: wide[name] + s * step * direction}) for s in (1, -1)]
        bound = tolerance * (np.linalg.norm(gradient.astype("float64")) + 1.0)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs((gradient * direction).sum() - slope) <= bound, name


def weight_gradients(layer, loss):
    """The gradients of `loss(call)` in the trainable weights, where `call` calls the layer."""
    backend = keras.backend.backend()
    variables = layer.trainable_variables
    if backend == "jax":
        import jax

        fixed = [v.value for v in layer.non_trainable_variables]

        def stateless(values):
            return loss(lambda **call: layer.stateless_call(values, fixed, **call)[0])

        grads = jax.jit(jax.grad(stateless))([v.value for v in variables])
    elif backend == "torch":
        layer.zero_grad()
        loss(layer).backward()
        grads = [v.value.grad for v in variables]
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            result = loss(layer)
        grads = tape.gradient(result, [v.value for v in variables])
    return {
        v.path: to_numpy(ops.convert_to_tensor(g)) for v, g in zip(variables, grads, strict=True)
    }


def compiled(function):
    """The function compiled by XLA; as it is on torch, whose compiler takes minutes."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(function)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return function


def compiled_on_jax(function):
    """The function compiled on JAX, where each operation that is new to it costs a compilation."""
    return compiled(function) if keras.backend.backend() == "jax" else function


def check_layer(layer, inputs, tmp_path, half_tolerance=0.1):
    """The contract of a layer: configuration, saving, shapes, precision, gradients, compilation.

    Args:
        layer: the layer, not yet called.
        inputs: dict of call arguments, NumPy arrays or tuples of them.
        tmp_path: a folder to save into.
        half_tolerance: largest error in bfloat16, relative to the largest value.

    Returns:
        The layer's output on the inputs, with randomised weights, as NumPy.
    """
    layer(**inputs)
    randomise(layer, seed=5)
    expected = to_numpy(layer(**inputs))
    _check_config(layer, inputs, expected)
    _check_saving(layer, inputs, expected, tmp_path)
    _check_precision(layer, inputs, expected, half_tolerance)
    if layer.trainable_variables:
        _check_gradients(layer, inputs)
    function = compiled(functools.partial(_call, layer))
    _assert_close(function(tree.map_structure(ops.convert_to_tensor, inputs)), expected, 1e-5)
    return expected


def _assert_close(actual, expected, tolerance):
    # Keras loads tuples of a saved model as lists, so only the order counts.
    for a, e in zip(tree.flatten(to_numpy(actual)), tree.flatten(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, np.abs(e).max()))


def _copy(layer, inputs, **changes):
    copy = layer.__class__.from_config({**layer.get_config(), **changes})
    # Built by symbols, for which JAX compiles nothing.
    copy(**_symbols(inputs))
    copy.set_weights(layer.get_weights())
    return copy


def _check_config(layer, inputs, expected):
    copy = _copy(layer, inputs)
    assert copy.get_config() == layer.get_config()
    assert [v.path for v in copy.weights] == [v.path for v in layer.weights]
    _assert_close(copy(**inputs), expected, 1e-6)


def _symbols(inputs):
    symbols = {}
    for name, value in inputs.items():
        parts = value if isinstance(value, tuple) else (value,)
        parts = tuple(_symbol(x, f"{name}_{i}" if i else name) for i, x in enumerate(parts))
        symbols[name] = parts if isinstance(value, tuple) else parts[0]
    return symbols


def _symbol(x, name):
    # Batch and lengths are dynamic; the last axis, and the heads of a cache, are not.
    shape = [None] * x.ndim
    if x.ndim > 2:
        shape[-1] = x.shape[-1]
    if x.ndim > 3:
        shape[1] = x.shape[1]
    return keras.Input(batch_shape=shape, dtype=str(x.dtype), name=name)


def _check_saving(layer, inputs, expected, tmp_path):
    """Alone in a functional model with dynamic lengths, whose shapes must hold for the results."""
    symbols = _symbols(inputs)
    outputs = layer(**symbols)
    tree.assert_same_structure(outputs, expected)
    for symbol, array in zip(tree.flatten(outputs), tree.flatten(expected), strict=True):
        assert len(symbol.shape) == array.ndim
        assert all(s in (None, n) for s, n in zip(symbol.shape, array.shape, strict=True))
    keras.Model(symbols, outputs).save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    _assert_close(loaded(inputs), expected, 1e-5)


def _check_precision(layer, inputs, expected, tolerance):
    for policy in ("mixed_bfloat16", "mixed_float16", keras.DTypePolicy("mixed_bfloat16")):
        copy = _copy(layer, inputs, dtype=policy)
        run = compiled_on_jax(functools.partial(_call, copy))
        results = run(tree.map_structure(ops.convert_to_tensor, inputs))
        for x in tree.flatten(results):
            assert keras.backend.standardize_dtype(x.dtype) == copy.compute_dtype
        assert all(v.dtype == "float32" for v in copy.weights)
        _assert_close(results, expected, tolerance)


def _call(layer, arrays):
    return layer(**arrays)


def _check_gradients(layer, inputs):
    def loss(call):
        return sum(ops.sum(ops.square(x)) for x in tree.flatten(call(**inputs)))

    for path, gradient in weight_gradients(layer, loss).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
