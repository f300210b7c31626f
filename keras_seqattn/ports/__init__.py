"""What a model takes and gives, declared once as data: see `Port` and `Ports`.

Models, the exporter, generation and the runtime read these declarations. Only `names.py` knows how
values are called. Nothing here imports Keras or a backend.
"""

from keras_seqattn.ports.port import ROLES, Port
from keras_seqattn.ports.ports import Ports, matching

__all__ = ["ROLES", "Port", "Ports", "matching"]
