"""Token selection, beam search and stopping in NumPy, for any decoder that follows one protocol.

A decoder has `start(batch_size, max_length)`, `__call__(input_ids, attention_mask)` with
input_ids int64 (b, t) and attention_mask int64 (b, total) giving the logits float32 (b, v) of the
last position, `reorder(rows)` with rows int (b,) for beams, and the attribute `vocabulary_size`. If
it has an attribute `is_streaming` that is true, its past does not grow, and texts may be of any
length.

The decoder of an encoder-decoder has two things more: `encode(input_ids, attention_mask)`, both
int64 (b, s), padded on the right, which is called before `start` (whose batch_size is sources x
beams), and the attribute `source_vocabulary_size`. One that reads features, float (b, s, f), in
place of ids has the attribute `source_features`, which is f.

A decoder may have `room(rows, prompt_length, max_length, sources, source_length)`, the least bytes
that a generation takes: what does not fit into memory is then refused before it begins.

A decoder holds the past of one generation. Those that run at the same time need one each, which a
`DecoderPool` lends them.
"""

from keras_seqattn.generation.beam import beam_search
from keras_seqattn.generation.generator import Generator
from keras_seqattn.generation.loop import decode
from keras_seqattn.generation.pool import DecoderPool
from keras_seqattn.generation.settings import GenerationConfig

__all__ = ["DecoderPool", "GenerationConfig", "Generator", "beam_search", "decode"]
