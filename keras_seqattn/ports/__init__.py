"""What a model takes and gives, declared once as data: see `Port` and `Ports`.

Models, the exporter, generation and the runtime read these declarations. Only `names.py` knows how
values are called. Nothing here imports Keras or a backend.
"""

from keras_seqattn.ports.port import ROLES, Port
from keras_seqattn.ports.ports import Ports, matching

# The entry of a file's metadata that holds what `Ports.declaration` gives, as JSON.
METADATA = "keras_seqattn.ports"

__all__ = ["METADATA", "ROLES", "Port", "Ports", "matching"]
