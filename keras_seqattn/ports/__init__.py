"""Ports: the inputs and outputs of a model, declared once as data. See `Port` and `Ports`.

Models, the exporter, generation and the runtime read these declarations. Only `names.py` knows the
names of values. Nothing here imports Keras or a backend.
"""

from keras_seqattn.ports.port import ROLES, Port
from keras_seqattn.ports.ports import Ports, matching

# The key in the metadata of a file whose value is the result of `Ports.declaration`, as JSON.
METADATA = "keras_seqattn.ports"

__all__ = ["METADATA", "ROLES", "Port", "Ports", "matching"]
