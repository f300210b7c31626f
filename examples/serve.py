"""Serve one loaded model to many at once: in threads over HTTP, and as streams of asyncio.

python examples/serve.py
curl --no-buffer --data "What is the capital of France?" localhost:8000
"""

import asyncio
import contextlib
import http.server
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from keras_seqattn import models, onnx, runtime, samples
from keras_seqattn.errors import SeqAttnError

QUESTIONS = ("What is the capital of France?", "What is the capital of Italy?")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the text that is posted, piece by piece; the server runs each request in a thread."""

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            stream = self.server.model.chat(text, stream=True, max_new_tokens=40)
        except SeqAttnError as error:
            return self.send_error(400, str(error))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        # If the reader goes away, writing raises, and the stream gives its memory back.
        with contextlib.closing(stream):
            for piece in stream:
                self.wfile.write(piece.encode())


async def pieces(stream):
    """What a stream yields, each piece computed in a thread, so that other tasks go on meanwhile.

    A step that runs cannot be interrupted: where the task is cancelled, the stream is closed behind
    it.
    """
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, stream, None))
            piece = await asyncio.shield(step)
            if piece is None:
                return
            yield piece
    finally:
        step.add_done_callback(lambda _: stream.close())


async def answers(model, most_pieces):
    """Both answers, generated at once, beside one that is left after some pieces."""

    async def answer(question, most=None):
        got = []
        stream = model.chat(question, stream=True, max_new_tokens=40)
        async with contextlib.aclosing(pieces(stream)) as running:
            async for piece in running:
                got.append(piece)
                if len(got) == most:
                    break
        return "".join(got)

    return await asyncio.gather(*map(answer, QUESTIONS), answer(QUESTIONS[0], most_pieces))


def main(short=False):
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "smollm2"
        onnx.export(models.load(samples.smollm2()), bundle, precision="int4", verify=not short)
        model = runtime.load(bundle)
        found = asyncio.run(answers(model, most_pieces=3))
        print(*found[:2], sep="\n")
        address = ("127.0.0.1", 0 if short else 8000)
        with http.server.ThreadingHTTPServer(address, Handler) as server:
            server.model = model
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            print(f"Ask {url}, and end with Ctrl-C.")
            if not short:
                threading.Event().wait()
            with urllib.request.urlopen(url, QUESTIONS[0].encode()) as response:
                found.append(response.read().decode())
            server.shutdown()
    return found


if __name__ == "__main__":
    main("--short" in sys.argv)
