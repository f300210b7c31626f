"""The three tasks: batches to train on, and tests by difficulty.

A batch is (input_ids int32 (b, t), labels int32 (b, t), or (b, 1) of whole texts). Token 0 is
padding; labels that do not count are IGNORED.
"""

import numpy as np

from keras_seqattn import samples, training
from keras_seqattn.training import IGNORED

PADDING = 0


class Recall:
    """Associative recall of several keys (https://arxiv.org/abs/2312.04927).

    Keys, each followed by its value, lie scattered in a text; then come the keys again, in any
    order, and each time the value is asked for, which is not shown.

    Args:
        pairs: tuple of numbers of pairs; a training text has any of them.
        length: of the part with pairs; as many positions ask as there can be pairs.
        symbols: number of keys, and of values.
        rows: texts of a batch.
        tests: texts of each test.
    """

    causal, classes, name_of_difficulty = True, None, "pairs"

    def __init__(self, pairs, length, symbols, rows, tests):
        self.pairs, self.length, self.symbols = pairs, length, symbols
        self.rows, self.tests = rows, tests
        self.vocabulary_size = 2 + 2 * symbols
        self.max_length = length + max(pairs)

    def batches(self, seed):
        """Training batches without end."""
        random = np.random.default_rng([seed, 0])
        while True:
            counts = random.choice(self.pairs, self.rows)
            yield self._stacked(random, counts)

    def evaluations(self, seed):
        """dict difficulty -> (input_ids, labels)."""
        random = np.random.default_rng([seed, 1])
        return {str(n): self._stacked(random, [n] * self.tests) for n in self.pairs}

    def _stacked(self, random, counts):
        texts = [self._text(random, count) for count in counts]
        return tuple(np.stack(part).astype("int32") for part in zip(*texts, strict=True))

    def _text(self, random, count):
        keys = 2 + random.permutation(self.symbols)[:count]
        values = 2 + self.symbols + random.integers(self.symbols, size=count)
        context = np.ones(self.length)
        places = 2 * random.permutation(self.length // 2)[:count]
        context[places], context[places + 1] = keys, values
        asked = np.resize(random.permutation(count), max(self.pairs))
        labels = np.full(self.max_length, IGNORED)
        labels[self.length :] = values[asked]
        return np.concatenate([context, keys[asked]]), labels


class Copying:
    """Random symbols, a sign, and the same symbols again, of which each next one is to be told.

    Args:
        lengths: tuple (shortest, longest) of the copied part of training texts.
        tested: lengths of the copied part in the tests.
        symbols: number of symbols.
        rows, tests: as of `Recall`.
    """

    causal, classes, name_of_difficulty = True, None, "symbols to copy"

    def __init__(self, lengths, tested, symbols, rows, tests):
        self.lengths, self.tested, self.symbols = lengths, tested, symbols
        self.rows, self.tests = rows, tests
        self.vocabulary_size = 2 + symbols
        self.max_length = 2 * max(*tested, *lengths)

    def batches(self, seed):
        """As of `Recall`."""
        random = np.random.default_rng([seed, 0])
        shortest, longest = self.lengths
        while True:
            yield self._stacked(random, random.integers(shortest, longest + 1, self.rows), longest)

    def evaluations(self, seed):
        """As of `Recall`."""
        random = np.random.default_rng([seed, 1])
        return {str(n): self._stacked(random, [n] * self.tests, n) for n in self.tested}

    def _stacked(self, random, counts, longest):
        ids = np.zeros((len(counts), 2 * longest), "int32")
        labels = np.full_like(ids, IGNORED)
        for row, count in enumerate(counts):
            text = 2 + random.integers(self.symbols, size=count)
            ids[row, : 2 * count] = [*text, 1, *text[:-1]]
            labels[row, count : 2 * count] = text
        return ids, labels


class Emails:
    """Whether a long e-mail is spam: real ones, in tokens of a BPE trained on them.

    Args:
        shortest, longest: tokens of an e-mail; shorter ones are left out, longer ones cut.
        vocabulary_size: of the BPE.
        rows: e-mails of a batch.
        tests: share of e-mails to test with.
        emails: how many to use; None is all.
    """

    causal, classes, name_of_difficulty = False, 2, "tokens"

    def __init__(self, shortest, longest, vocabulary_size, rows, tests, emails=None):
        self.rows, self.max_length = rows, longest
        found = [(text, str(int(spam))) for text, spam in samples.spam_assassin()]
        if emails is not None:
            found = found[:: len(found) // emails]
        split = training.split_pairs(found, validation=0.0, test=tests)
        encode = _encoder([text for text, _ in split.train], vocabulary_size)
        self.vocabulary_size = vocabulary_size
        self.train, self.test = (
            _padded(encode, part, shortest, longest) for part in (split.train, split.test)
        )

    def batches(self, seed):
        """As of `Recall`."""
        random, (ids, labels) = np.random.default_rng(seed), self.train
        while True:
            order = random.permutation(len(ids))
            for start in range(0, len(ids) - self.rows + 1, self.rows):
                rows = order[start : start + self.rows]
                yield ids[rows], labels[rows]

    def evaluations(self, seed):
        """As of `Recall`."""
        return {f"up to {self.max_length}": self.test}


def _encoder(texts, vocabulary_size):
    from tokenizers import Tokenizer

    files = training.train_bpe(texts, vocabulary_size)
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def _padded(encode, pairs, shortest, longest):
    """Ids int32 (r, longest) and labels int32 (r, 1) of the texts that are long enough."""
    texts = encode([text for text, _ in pairs])
    kept = [(ids, int(label)) for ids, (_, label) in zip(texts, pairs, strict=True)]
    kept = [(ids[:longest], label) for ids, label in kept if len(ids) >= shortest]
    padded = np.full((len(kept), longest), PADDING, "int32")
    for row, (ids, _) in enumerate(kept):
        padded[row, : len(ids)] = ids
    return padded, np.array([[label] for _, label in kept], "int32")


TASKS = {"recall": Recall, "copying": Copying, "emails": Emails}
TITLES = {
    "recall": "associative recall",
    "copying": "copying",
    "emails": "long e-mails, spam or not",
}
