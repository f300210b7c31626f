"""Makes one vector of the hidden states of a text, as the files of the checkpoint say."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import BundleError
from keras_seqattn.json_objects import parse_object


def mean_pooling(states, mask):
    """sum(states) / number of tokens, over the tokens of each text."""
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.einsum("bsm,bs->bm", states, mask) / counts


def mean_sqrt_pooling(states, mask):
    """sum(states) / sqrt(number of tokens)."""
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.einsum("bsm,bs->bm", states, mask) / np.sqrt(counts)


def max_pooling(states, mask):
    """The maximum of each channel over the tokens."""
    return np.where(mask[:, :, None] > 0, states, -np.inf).max(axis=1)


def first_pooling(states, mask):
    """The hidden state of the first token, as in BERT."""
    return states[np.arange(len(states)), (mask > 0).argmax(axis=1)]


def last_pooling(states, mask):
    """The hidden state of the last token, as in decoders for embeddings."""
    last = mask.shape[1] - 1 - (mask[:, ::-1] > 0).argmax(axis=1)
    return states[np.arange(len(states)), last]


def weighted_mean_pooling(states, mask):
    """The weighted mean. The weight of a token is its place in the text, counted from 1."""
    return mean_pooling(states, mask * np.cumsum(mask, axis=1))


# The order in which sentence-transformers joins the results.
_MODES = {
    "cls": first_pooling,
    "max": max_pooling,
    "mean": mean_pooling,
    "mean_sqrt_len_tokens": mean_sqrt_pooling,
    "weightedmean": weighted_mean_pooling,
    "lasttoken": last_pooling,
}
_SWITCHES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_MODULES = ("Transformer", "Pooling", "Normalize")


class Pooling:
    """Pooling and normalisation of a sentence-transformers checkpoint.

    Args:
        modes: names of ways to pool. The results of several ways are joined.
        normalize: bool, scale vectors to length 1.
    """

    def __init__(self, modes=("mean",), normalize=False):
        unknown = sorted(set(modes) - set(_MODES))
        if unknown:
            raise BundleError(
                f"pooling {_listed(unknown)} is not implemented; implemented: {', '.join(_MODES)}"
            )
        self.modes = tuple(modes)
        self.normalize = normalize

    @classmethod
    def from_assets(cls, assets):
        """Read modules.json and the config.json of pooling. Without files, take the mean.

        Raises:
            BundleError: the checkpoint has a module or a way to pool that is not implemented.
        """
        modules = _read_modules(assets)
        unknown = sorted({kind for kind, _ in modules} - set(_MODULES))
        if unknown:
            raise BundleError(f"modules.json asks for {_listed(unknown)}, not implemented")
        name = pooling_file(assets)
        if "Pooling" in {kind for kind, _ in modules} and name not in assets:
            raise BundleError(f"modules.json asks for pooling by {name[:200]}, which is missing")
        modes = _modes(assets[name], name) if name in assets else ["mean"]
        return cls(modes, "Normalize" in {kind for kind, _ in modules})

    def __call__(self, states, mask):
        """Pool `states` float32 (b, s, m) under `mask` int (b, s); float32 (b, m * modes)."""
        mask = mask.astype(states.dtype)
        pooled = np.concatenate([_MODES[mode](states, mask) for mode in self.modes], axis=-1)
        if self.normalize:
            pooled = normalize(pooled)
        return pooled.astype(np.float32, copy=False)


def pooling_file(assets):
    """str, the name of the file that says how to pool, in the folder that modules.json names.

    Raises:
        BundleError: modules.json is damaged.
    """
    folders = [folder for kind, folder in _read_modules(assets) if kind == "Pooling"]
    return f"{folders[0] if folders else '1_Pooling'}/config.json"


def normalize(vectors):
    """Scale each vector of (b, m) to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _listed(names):
    return ", ".join(name[:60] for name in names[:6])


def _read_modules(assets):
    """list of (kind, folder), for each module in modules.json."""
    modules = parse_object(assets.get("modules.json", b"[]"), "modules.json", kind=list)
    for module in modules:
        given = module if isinstance(module, dict) else {}
        if not isinstance(given.get("type"), str) or not isinstance(given.get("path", ""), str):
            raise BundleError(
                f"modules.json: {shown(module)} must be an object whose type and path are texts"
            )
    return [(module["type"].rsplit(".", 1)[-1], module.get("path", "")) for module in modules]


def _modes(content, name):
    """The ways to pool that the config.json of pooling turns on, in one of its two forms."""
    config = parse_object(content, name)
    modes = config.get("pooling_mode")
    if modes is not None:
        modes = [modes] if isinstance(modes, str) else modes
        is_list = isinstance(modes, list) and 0 < len(modes) <= len(_MODES)
        if not is_list or not all(isinstance(mode, str) for mode in modes):
            raise BundleError(
                f"{name}: pooling_mode is {shown(modes)}, and must be a name or names"
            )
        return modes
    for switch in _SWITCHES.values():
        if not isinstance(config.get(switch) or False, bool):
            raise BundleError(f"{name}: {switch} is {shown(config[switch])}, not true or false")
    return [mode for mode, switch in _SWITCHES.items() if config.get(switch)] or ["mean"]
