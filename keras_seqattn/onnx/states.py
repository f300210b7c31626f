"""What stateful layers keep from one call to the next: in a file, more inputs and outputs."""

import keras
import numpy as np

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.keras_internals import all_layers, metric_variables
from keras_seqattn.ports import Port
from keras_seqattn.ports.names import follower, kept_names

# The name of the variables of keras.random.SeedGenerator.
_SEED = "seed_generator_state"


def state_variables(model):
    """dict of name of an input -> the variable that a stateful recurrent layer keeps there."""
    variables = [
        variable
        for layer in all_layers(model)
        if getattr(layer, "stateful", False)
        for variable in keras.tree.flatten(getattr(layer, "states", None) or [])
    ]
    # A wrapper of layers has their states, too.
    variables = list({id(v): v for v in variables}.values())
    return dict(zip(kept_names([v.path for v in variables]), variables, strict=True))


class TracedStates:
    """The states of a model during a trace.

    Args:
        tracer: the Tracer.
        model: the Keras model.
    """

    def __init__(self, tracer, model):
        self._tracer = tracer
        self._names = {id(v): name for name, v in state_variables(model).items()}
        self._ignored = {id(v) for v in metric_variables(model)}
        self._current = {}
        self._ports = {}
        self._model, self._made = model, []

    def read(self, variable):
        """The state as a Symbol: an input of the graph, or what an earlier call has left."""
        if id(variable) not in self._current:
            name, dtype = self._names[id(variable)], variable.dtype
            port = Port(name, axes=tuple(variable.shape), dtype=dtype, follows=follower(name))
            self._current[id(variable)] = self._tracer.add_input(name, port.axes, dtype)
            self._tracer.graph.inputs[-1].meta["port"] = port
            self._ports[id(variable)] = port
        return self._current[id(variable)]

    def replace(self, variable, state):
        """Give a variable the state for the next call."""
        self._current[id(variable)] = state

    @property
    def ports(self):
        """tuple of `Port`: the inputs that were made."""
        return tuple(self._ports.values())

    def outputs(self):
        """dict of name of an output -> Symbol with the new state. No other output has the name."""
        return {port.follows: self._current[key] for key, port in self._ports.items()}

    def made(self, original):
        """The wrapper of `keras.Variable.__init__`, which notes what a layer makes in its call."""

        def traced(variable, *args, **kwargs):
            self._made.append((self._tracer.where(), variable))
            return original(variable, *args, **kwargs)

        return traced

    def check_weights(self):
        """Raises:
        ExportError: a layer made a weight in its call and did not keep it.
        """
        kept = {id(v) for v in self._model.variables} if self._made else ()
        for where, variable in self._made:
            if id(variable) not in kept and variable.name != _SEED:
                raise ExportError(
                    f"{where}: it makes the weight {variable.path} in its call, so that each call "
                    "has other weights; make the layer or the weight in __init__ or build"
                )

    def assigned(self, original):
        """The wrapper of `keras.Variable.assign`: code of a layer must not change the model."""

        def traced(variable, value):
            # The state of random numbers says nothing about the numbers that a file draws.
            if id(variable) in self._ignored or variable.name == _SEED:
                return value
            raise ExportError(
                f"{self._tracer.where()}: it gives its variable {variable.name} a new value at "
                "inference, and a file keeps nothing between two runs; assign only if training, or "
                "take the value as an input and return the new one"
            )

        return traced


class KeptStates:
    """The states of a Keras model while it is compared with its file.

    Args:
        model: the Keras model.
        ports: `Ports` of the file.
    """

    def __init__(self, model, ports):
        known = state_variables(model)
        self.variables = {name: v for name, v in known.items() if name in ports.carried}
        self._followers = {name: ports.carried[name] for name in self.variables}

    def draw(self, random):
        """Random states by name."""
        return {
            name: random.normal(size=v.shape).astype(v.dtype) for name, v in self.variables.items()
        }

    def without(self, outputs):
        """The names of outputs that are no states."""
        return [name for name in outputs if name not in self._followers.values()]

    def run(self, states, call):
        """(result of `call()` with these states, new states by the names of outputs)."""
        before = {name: _value(v) for name, v in self.variables.items()}
        try:
            for name, variable in self.variables.items():
                variable.assign(states[name])
            result = call()
            return result, {self._followers[name]: _value(v) for name, v in self.variables.items()}
        finally:
            for name, variable in self.variables.items():
                variable.assign(before[name])


def _value(variable):
    return np.array(keras.ops.convert_to_numpy(variable.value))
