"""Creates onnxruntime sessions."""

import contextlib
import functools
import os

import onnxruntime

from keras_seqattn.arguments import integer, shown
from keras_seqattn.errors import BundleError, InputError, first_line
from keras_seqattn.runtime.graph_ports import graph_ports, port_of_value

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# On CPU the fused node is several times slower than the Add and the normalization that it replaces.
_SLOW_FUSIONS = "SkipLayerNormFusion"
# Idle threads wait busily for this time. It is longer than the time between two operators of a
# step, and short enough to leave the cores to other generations. The default of onnxruntime is
# thousands of times longer; before 1.26 it cannot be changed.
_SPIN_MICROSECONDS = "50"
_MOST_THREADS = 1024


class Session(onnxruntime.InferenceSession):
    """An onnxruntime session that knows its file and its process. Its errors are InputError.

    A forked child has no copy of its threads, and would sometimes wait for them for ever.
    """

    def __init__(self, path, *arguments, **settings):
        super().__init__(str(path), *arguments, **settings)
        self.path = path
        self._process = os.getpid()

    @functools.cached_property
    def ports(self):
        """The `keras_seqattn.ports.Ports` of the graph.

        Raises:
            BundleError: the declarations in the file are not valid.
        """
        metadata = self.get_modelmeta().custom_metadata_map
        sides = (map(port_of_value, side) for side in (self.get_inputs(), self.get_outputs()))
        return graph_ports(*map(list, sides), metadata)

    def check_process(self):
        """Raise BundleError if this is not the process that made the session."""
        if os.getpid() != self._process:
            raise BundleError(
                f"this bundle was loaded in process {self._process}, and this process "
                f"{os.getpid()} is a fork of it. The threads of onnxruntime do not survive a fork: "
                "load the bundle in each process, after the fork"
            )

    def check_names(self):
        """Raise UnicodeDecodeError if the graph holds names or metadata that are not text."""
        for value in (*self.get_inputs(), *self.get_outputs()):
            _ = value.name, value.shape
        _ = self.get_modelmeta().custom_metadata_map

    def run(self, *arguments, **settings):
        with self._explained():
            return super().run(*arguments, **settings)

    def run_with_iobinding(self, *arguments, **settings):
        with self._explained():
            return super().run_with_iobinding(*arguments, **settings)

    @contextlib.contextmanager
    def _explained(self):
        self.check_process()
        try:
            yield
        except Exception as error:  # errors of onnxruntime have no common public base class
            raise InputError(
                f"{self.path}: the graph cannot run these inputs: {first_line(error)}"
            ) from None


def create_session(path, providers=None, threads=None, spinning=True, arena=True):
    """Load an ONNX file.

    Args:
        path: the file.
        providers: list of onnxruntime execution providers. None takes CUDA if it is available, else
            CPU.
        threads: int, number of threads of one operator. None lets onnxruntime choose (every core).
        spinning: bool, whether idle threads wait busily. This is the fastest for one session in the
            process. With several sessions, it makes the others slow.
        arena: bool, whether freed memory is kept for later runs, and planned for lengths that
            occurred before. This is faster. Without it, only memory in use is held.

    Raises:
        InputError: a provider is not available, or an argument has a wrong type.
        BundleError: onnxruntime refuses the file.
    """
    providers, threads = check_session_options(providers, threads)
    names = [item if isinstance(item, str) else item[0] for item in providers]
    options = onnxruntime.SessionOptions()
    # The exceptions of onnxruntime contain all that it would print.
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    if threads is not None:
        options.intra_op_num_threads = threads
    if spinning:
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _CUDA not in names:
        options.add_session_config_entry("optimization.disable_specified_optimizers", _SLOW_FUSIONS)
    try:
        # The second try of onnxruntime itself, on the CPU, would print a message first.
        session = Session(path, options, providers=providers, enable_fallback=int(_CUDA in names))
        session.check_names()
        return session
    except Exception as error:  # errors of onnxruntime have no common public base class
        raise BundleError(f"onnxruntime cannot load {path}: {first_line(error)}") from None


def check_session_options(providers, threads):
    """The arguments of `create_session`. If no providers are given, they are chosen here.

    Raises:
        InputError: a provider is not available, or an argument has a wrong type.
    """
    if threads is not None:
        threads = integer(threads, "threads", least=1, most=_MOST_THREADS)
    available = onnxruntime.get_available_providers()
    if providers is None:
        return [name for name in (_CUDA, _CPU) if name in available], threads
    if not isinstance(providers, (list, tuple)) or not providers:
        raise InputError(
            f"providers={shown(providers)} must be a list of onnxruntime's execution providers, "
            f"such as {available}"
        )
    missing = [
        shown(item).strip("'") for item in providers if _provider_name(item) not in available
    ]
    if missing:
        raise InputError(
            f"providers {_listed(missing)} are not available; available: {', '.join(available)}"
        )
    return list(providers), threads


def _listed(providers):
    return ", ".join(shown(item).strip("'") for item in providers[:4])


def _provider_name(item):
    """The name of a provider. It is given alone, or as (name, dict of options)."""
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], dict):
        item = item[0]
    return item if isinstance(item, str) else None
