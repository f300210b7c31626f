"""The errors for users. Each message says what was wrong, where, and what to do."""


class SeqAttnError(Exception):
    """Base of every error that keras_seqattn raises on purpose; its message is for users."""


class ConfigError(SeqAttnError, ValueError):
    """A model configuration holds a value that is missing, contradictory or not implemented."""


class CheckpointError(SeqAttnError, ValueError):
    """A checkpoint cannot be read, or does not hold exactly the weights that the model needs."""


class DataError(SeqAttnError, ValueError):
    """A sample of data cannot be fetched, or it is not the expected one."""


class ExportError(SeqAttnError, RuntimeError):
    """A model, or one operation in it, cannot be written as ONNX."""


class BundleError(SeqAttnError, ValueError):
    """An exported bundle is incomplete, inconsistent or unsafe to open."""


class InputError(SeqAttnError, ValueError):
    """An argument of a run (token ids, lengths, texts, generation settings) is out of range."""


def first_line(error):
    """The first line of an error of another library, or its class name if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
