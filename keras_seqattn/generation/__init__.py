"""Token selection, beam search and stopping in NumPy, for any decoder that follows one protocol.

A decoder has these methods and one attribute:

- `start(batch_size, max_length)`;
- `__call__(input_ids, attention_mask)` with input_ids int64 (b, t) and attention_mask int64
  (b, total); it returns the logits float32 (b, v) of the last position;
- `reorder(rows)` with rows int (b,), for beams;
- `vocabulary_size`.

If its attribute `is_streaming` exists and is true, its past does not grow, and texts may have any
length.

The decoder of an encoder-decoder also has `encode(input_ids, attention_mask)`, both int64 (b, s)
and padded on the right. It is called before `start`, whose batch_size is then sources x beams. The
attribute `source_vocabulary_size` is the number of tokens of the source. If the model reads
features, float (b, s, f), and no ids, the attribute `source_features` is f.

A decoder may have `room(rows, prompt_length, max_length, sources, source_length)`, the minimum
number of bytes of a generation. If they do not fit into memory, the generation is refused before it
begins.

A decoder holds the past of one generation. Each generation needs its own decoder while it runs; a
`DecoderPool` lends them.
"""

from keras_seqattn.generation.beam import beam_search
from keras_seqattn.generation.generator import Generator
from keras_seqattn.generation.loop import decode
from keras_seqattn.generation.pool import DecoderPool
from keras_seqattn.generation.settings import GenerationConfig

__all__ = ["DecoderPool", "GenerationConfig", "Generator", "beam_search", "decode"]
