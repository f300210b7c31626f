"""Batches of texts of similar length, in a few fixed shapes."""

import keras
import numpy as np

from keras_seqattn.arguments import integer
from keras_seqattn.errors import InputError
from keras_seqattn.memory import check_memory
from keras_seqattn.training.checks import texts_of_ids, token_id, token_ids
from keras_seqattn.training.targets import IGNORED, next_tokens, shift_right


class TokenBatches(keras.utils.PyDataset):
    """Batches for `fit`: texts grouped by length and padded to it, with about equally many tokens.

    Each length gives one shape of batch, so a training step is compiled once for each length. Every
    text comes once in an epoch. The last batch of a group is filled with other texts of the group,
    whose labels are ignored. This keeps its shape and does not change a mean over tokens.

    Items are (inputs, {"logits": labels int32 (b, t)}); a label of -100 is not learnt. The inputs
    of a sequence-to-sequence model are input_ids and attention_mask, (b, s), and decoder_input_ids,
    (b, t), with s = t. The inputs of a causal model are input_ids and attention_mask.

    Args:
        sources: list of lists of int, the texts that the model reads.
        targets: list of lists of int, the texts that it must write, with the end token; None for a
            causal model, which learns to continue its texts.
        tokens_per_batch: int, maximum of rows x length of a batch (a batch has at least one row).
        lengths: list of int, the lengths to pad to.
        decoder_start_token_id: int, the first input of the decoder; only with targets.
        pad_token_id: int.
        seed: int, seed of the order, which is another one in each epoch; None keeps the given order
            for each length.
        **kwargs: arguments of keras.utils.PyDataset: workers, use_multiprocessing, max_queue_size.

    Raises:
        InputError: a text is empty or longer than the largest length, or the numbers of sources and
            targets differ.
    """

    def __init__(
        self,
        sources,
        targets=None,
        *,
        tokens_per_batch=4096,
        lengths=(16, 32, 64, 128),
        decoder_start_token_id=None,
        pad_token_id=0,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        texts_of_ids(sources, "sources")
        integer(tokens_per_batch, "tokens_per_batch", least=1)
        check_memory(32 * tokens_per_batch, "batches", "lower tokens_per_batch")
        token_id(pad_token_id, "pad_token_id")
        if seed is not None:
            integer(seed, "seed")
        if not len(token_ids(lengths, "lengths")) or min(lengths) < 1:
            raise InputError("lengths must hold integers of at least 1")
        if targets is not None:
            texts_of_ids(targets, "targets")
        if targets is not None and decoder_start_token_id is None:
            raise InputError("decoder_start_token_id is needed where there are targets")
        if decoder_start_token_id is not None:
            token_id(decoder_start_token_id, "decoder_start_token_id")
        self.sources, self.targets = sources, targets
        self.tokens_per_batch = tokens_per_batch
        self.decoder_start_token_id = decoder_start_token_id
        self.pad_token_id = pad_token_id
        self.seed = seed
        self._epoch = 0
        self._groups = _group(sources, targets, sorted(lengths))
        self._arrange()

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, index):
        length, rows, real = self._batches[index]
        texts, mask = self._padded(self.sources, rows, length)
        inputs = {"input_ids": texts, "attention_mask": mask}
        if self.targets is None:
            labels = next_tokens(texts, mask)
        else:
            labels, mask = self._padded(self.targets, rows, length)
            labels = np.where(mask == 1, labels, IGNORED)
            inputs["decoder_input_ids"] = shift_right(
                labels, self.decoder_start_token_id, self.pad_token_id
            )
        labels[real:] = IGNORED
        return inputs, {"logits": labels}

    def on_epoch_end(self):
        self._epoch += 1
        self._arrange()

    def padding(self):
        """float, the share of positions in the batches of an epoch that are padding or filling."""
        sides = [self.sources] if self.targets is None else [self.sources, self.targets]
        real = sum(len(text) for side in sides for text in side)
        slots = sum(length * len(rows) for length, rows, _ in self._batches)
        return 1 - real / (slots * len(sides))

    def _arrange(self):
        """Choose the batches of an epoch: (length, rows, number of rows that count)."""
        rng = None if self.seed is None else np.random.default_rng([self.seed, self._epoch])
        batches = []
        for length, members in self._groups.items():
            rows = members if rng is None else rng.permutation(members)
            size = max(1, self.tokens_per_batch // length)
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                batches.append((length, np.resize([*part, *rows], size), len(part)))
        order = list(range(len(batches)) if rng is None else rng.permutation(len(batches)))
        # TensorFlow's fit learns from the first two batches which sizes vary. So these must have
        # the shortest and the longest length.
        for place, length in enumerate(dict.fromkeys([min(self._groups), max(self._groups)])):
            found = next(i for i in order if batches[i][0] == length)
            order.remove(found)
            order.insert(place, found)
        self._batches = [batches[i] for i in order]

    def _padded(self, texts, rows, length):
        """Ids and mask, int32 (b, length), padded on the right."""
        ids = np.full((len(rows), length), self.pad_token_id, "int32")
        mask = np.zeros((len(rows), length), "int32")
        for i, row in enumerate(rows):
            text = texts[row]
            ids[i, : len(text)] = text
            mask[i, : len(text)] = 1
        return ids, mask


def _group(sources, targets, lengths):
    """dict of padded length -> int array with the texts of that group, for groups with texts."""
    sizes = np.array([len(text) for text in sources])
    shortest = sizes
    if targets is not None:
        if len(sources) != len(targets):
            raise InputError(f"there are {len(sources)} sources and {len(targets)} targets")
        others = np.array([len(text) for text in targets])
        sizes, shortest = np.maximum(sizes, others), np.minimum(sizes, others)
    if not len(sizes) or shortest.min() < 1:
        raise InputError("there must be texts, and each must have at least one token")
    if sizes.max() > lengths[-1]:
        raise InputError(
            f"{int((sizes > lengths[-1]).sum())} texts are longer than {lengths[-1]} tokens, the "
            f"longest has {sizes.max()}: leave them out, cut them, or add to lengths"
        )
    group = np.searchsorted(lengths, sizes)
    members = {length: np.flatnonzero(group == i) for i, length in enumerate(lengths)}
    return {length: rows for length, rows in members.items() if len(rows)}
