"""Talk with SmolLM2-135M-Instruct: from its GGUF file to an int4 bundle, and then without Keras.

python examples/chat.py
"""

import sys
import tempfile
from pathlib import Path

from keras_seqattn import models, onnx, runtime, samples

QUESTIONS = ("What is the capital of France?", "And of Italy?")


def main(short=False):
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "smollm2"
        onnx.export(models.load(samples.smollm2()), bundle, precision="int4", verify=not short)
        model = runtime.load(bundle)
        messages = []
        for question in QUESTIONS[: 1 if short else None]:
            print(f"> {question}")
            messages.append({"role": "user", "content": question})
            answer = ""
            for piece in model.chat(messages, stream=True, max_new_tokens=40):
                print(piece, end="", flush=True)
                answer += piece
            print()
            messages.append({"role": "assistant", "content": answer})
    return messages


if __name__ == "__main__":
    main("--short" in sys.argv)
