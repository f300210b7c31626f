"""Creates onnxruntime sessions."""

import os

import onnxruntime

from keras_seqattn.errors import BundleError, InputError

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# On CPU the fused node is several times slower than the Add and the normalization it replaces.
_SLOW_FUSIONS = "SkipLayerNormFusion"
# So long idle threads wait busily: longer than between two operators of a step, and short enough to
# leave the cores to other generations. onnxruntime's own choice is thousands of these; before 1.26
# it knows no other.
_SPIN_MICROSECONDS = "50"


class Session(onnxruntime.InferenceSession):
    """An onnxruntime session that knows its process: its threads are not in a forked child, which
    would now and then wait for them without an end."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self._process = os.getpid()

    def check_process(self):
        """Raise BundleError in another process than that which made the session."""
        if os.getpid() != self._process:
            raise BundleError(
                f"this bundle was loaded in process {self._process}, of which {os.getpid()} is a "
                "fork, and onnxruntime's threads do not survive a fork: load the bundle in each "
                "process, after the fork"
            )

    def run(self, *arguments, **settings):
        self.check_process()
        return super().run(*arguments, **settings)

    def run_with_iobinding(self, *arguments, **settings):
        self.check_process()
        return super().run_with_iobinding(*arguments, **settings)


def create_session(path, providers=None, threads=None, spinning=True, arena=True):
    """Load an ONNX file.

    Args:
        path: the file.
        providers: list of onnxruntime execution providers, or None: CUDA if there is one, else CPU.
        threads: int, threads within one operator; None leaves it to onnxruntime (every core).
        spinning: bool, whether idle threads wait busily: quickest for one session in the process,
            and slow for the others where there are several.
        arena: bool, whether memory that is freed is kept for what comes next, and laid out ahead
            for lengths seen before: quicker. Without it no more is held than is in use.

    Raises:
        InputError: a provider is not available.
        BundleError: onnxruntime refuses the file.
    """
    available = onnxruntime.get_available_providers()
    if providers is None:
        providers = [name for name in (_CUDA, _CPU) if name in available]
    names = [item if isinstance(item, str) else item[0] for item in providers]
    missing = [name for name in names if name not in available]
    if missing:
        raise InputError(
            f"providers {', '.join(missing)} are not available; there are {', '.join(available)}"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
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
        return Session(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime's own errors share no public base class
        raise BundleError(f"onnxruntime cannot load {path}: {_first_line(error)}") from None


def _first_line(error):
    return str(error).strip().splitlines()[0]
