"""The names by which the values of one decoding step reach the next, for Keras and ONNX alike."""

_RENAMED = {"encoder_hidden_states": "last_hidden_state"}
# The most tokens that a decoder with states reads at once: what it keeps of them has a fixed size.
LARGEST_CHUNK = 1024
# How many real tokens a streaming decoder has read so far.
LENGTH = "past_states.length"
_CARRIED = {"past_key_values.": "present.", "past_states.": "present_states."}


def output_for(name):
    """The output, of the encoder or of the step before, that becomes the step's input `name`."""
    for past, present in _CARRIED.items():
        if name.startswith(past):
            return present + name.removeprefix(past)
    return _RENAMED.get(name, name)


def varies_per_beam(name):
    """Whether the step's input `name` is a beam's own past, rather than what came of the source."""
    return name.startswith(tuple(_CARRIED)) and ".encoder." not in name


def is_cache(name):
    """Whether the step's input `name` is a key/value cache, which starts empty and grows."""
    return name.startswith("past_key_values.")


def is_streaming(names):
    """Whether a step with these inputs has a past of fixed size, and a mask of new tokens only."""
    return LENGTH in names
