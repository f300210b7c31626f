"""Declarations of inputs and outputs: what they hold, refuse, and bring through a file."""

import dataclasses
import json

import pytest

from keras_seqattn.errors import InputError
from keras_seqattn.ports import Port, Ports, matching
from keras_seqattn.ports import names as port_names

pytestmark = pytest.mark.backend_free

BATCH, LENGTH = "batch_size", "sequence_length"


def decoder_ports():
    """What the step of a decoder with a cache and a state declares."""
    key, present_key = port_names.cache_names(3, "key")
    state, present_state = port_names.state_names(11, "sum")
    inputs = (
        port_names.tokens(97),
        port_names.mask(length=port_names.TOTAL),
        Port(key, "cache", (BATCH, 2, port_names.PAST, 5), follows=present_key),
        Port(state, "state", (BATCH, 7), follows=present_state),
    )
    outputs = (
        Port("logits", "logits", (BATCH, LENGTH, 97)),
        Port(present_key, "cache", (BATCH, 2, port_names.TOTAL, 5)),
        Port(present_state, "state", (BATCH, 7)),
    )
    limits = {port_names.TOTAL: 41}
    return Ports(inputs, outputs, limits=limits, totals=port_names.TOTALS)


def bare(ports):
    """The same as a file shows it: names, axes and types alone."""
    sides = (
        tuple(Port(port.name, axes=port.axes, dtype=port.dtype) for port in side)
        for side in (ports.inputs, ports.outputs)
    )
    return Ports(*sides)


def test_a_declaration_brings_all_through_json():
    ports = decoder_ports()
    declaration = json.loads(json.dumps(ports.declaration()))
    assert bare(ports) != ports
    assert bare(ports).with_declaration(declaration) == ports
    assert json.loads(json.dumps(bare(ports).declaration())) == {
        "inputs": {port.name: {"role": "data"} for port in ports.inputs},
        "outputs": {port.name: {"role": "data"} for port in ports.outputs},
    }


def test_the_names_of_a_decoder_tell_the_roles():
    ports = decoder_ports()
    inputs = [port_names.guess(port) for port in bare(ports).inputs]
    outputs = port_names.guess_outputs(bare(ports).outputs, inputs)
    assert [port.role for port in inputs] == [port.role for port in ports.inputs]
    assert [port.follows for port in inputs] == [port.follows for port in ports.inputs]
    assert [port.role for port in outputs] == [port.role for port in ports.outputs]


def test_what_ports_answer():
    ports = decoder_ports()
    assert [port.role for port in ports.pasts] == ["cache", "state"]
    assert ports.carried == {port.name: port.follows for port in ports.pasts}
    assert ports.longest == 41 and not ports.is_streaming
    assert ports.pasts[0].grown_axis == 2 and ports.pasts[1].grown_axis is None
    assert ports.first("positions") is None and ports.first("state", "mask").role == "mask"
    assert ports.given("logits").axes[-1] == 97 and ports.given("hidden_states") is None


def test_names_that_a_declaration_lacks_or_only_it_has_change_nothing():
    """Another program may have renamed or removed inputs of the file."""
    ports = decoder_ports()
    declaration = ports.declaration()
    declaration["inputs"]["gone"] = declaration["inputs"].pop("input_ids")
    found = bare(ports).with_declaration(declaration)
    assert found.inputs[0] == bare(ports).inputs[0] and found.inputs[1:] == ports.inputs[1:]


@pytest.mark.parametrize(
    "change, message",
    [
        ([], "must be an object"),
        ({"inputs": 3}, "inputs must be an object"),
        ({"outputs": {"logits": 3}}, "'logits' must be an object with role"),
        ({"inputs": {"input_ids": {"axes": []}}}, "'input_ids' must be an object with role"),
        ({"inputs": {"input_ids": {"role": "king"}}}, "input_ids: unknown role 'king'"),
        ({"inputs": {"input_ids": {"role": ["mask"]}}}, "input_ids: unknown role"),
        ({"inputs": {"input_ids": {"below": "97"}}}, "below must be an integer"),
        ({"inputs": {"input_ids": {"least": True}}}, "least must be an integer"),
        ({"inputs": {"input_ids": {"most_ones": 1.5}}}, "most_ones must be an integer"),
        ({"inputs": {"input_ids": {"follows": 3}}}, "follows must be the name of an output"),
        ({"limits": {"batch_size": 0}}, "'batch_size' must be an integer from 1"),
        ({"limits": {"batch_size": True}}, "'batch_size' must be an integer from 1"),
        ({"totals": {"x": "ab"}}, "'x' must be a list of names"),
        ({"totals": [1]}, "totals must be an object"),
    ],
)
def test_declarations_that_are_not_valid_are_refused(change, message):
    ports = bare(decoder_ports())
    declaration = change if isinstance(change, list) else ports.declaration() | change
    with pytest.raises(InputError, match=message):
        ports.with_declaration(declaration)


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"name": ""}, "the name of a port must be a text"),
        ({"name": 3}, "the name of a port must be a text, not 3"),
        ({"axes": (None, 3)}, "an axis is a size or the name of a dimension, not None"),
        ({"axes": (-1,)}, "an axis is a size"),
        ({"axes": ("",)}, "an axis is a size"),
        ({"axes": (True,)}, "an axis is a size"),
        ({"axes": "bt"}, "axes must be a list, not 'bt'"),
        ({"axes": 5}, "axes must be a list, not 5"),
        ({"least": 4, "below": 4}, "no integer is >= 4 and < 4"),
    ],
)
def test_ports_that_are_not_valid_are_refused(attributes, message):
    with pytest.raises(InputError, match=message):
        Port(**{"name": "x"} | attributes)


def test_better_ports_take_the_place_of_those_of_their_names():
    ports = decoder_ports()
    better = dataclasses.replace(ports.inputs[0], below=50)
    assert matching(ports, [better])["input_ids"] == better
    for wrong, message in (
        (dataclasses.replace(better, name="ids"), "no input or output 'ids'; it has"),
        (dataclasses.replace(better, dtype="int32"), "input_ids is int64 in the model, not int32"),
        (dataclasses.replace(better, axes=(3, LENGTH)), "input_ids has the axes"),
        (dataclasses.replace(better, axes=(BATCH,)), "input_ids has the axes"),
    ):
        with pytest.raises(InputError, match=message):
            matching(ports, [wrong])
    with pytest.raises(InputError, match="the same name"):
        matching(ports, [better, better])
    with pytest.raises(InputError, match="input_ids follows 'nothing', which is no output"):
        matching(ports, [dataclasses.replace(better, follows="nothing")])
