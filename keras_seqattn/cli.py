"""The command line `keras-seqattn`: it exports checkpoints to bundles, and uses bundles.

Only the commands that need Keras import it, so the others start at once.
"""

import json
import os
import sys
import warnings
from pathlib import Path

from keras_seqattn import __version__, console
from keras_seqattn.backends import start_keras
from keras_seqattn.errors import InputError


def main(argv=None):
    """Run one command.

    Args:
        argv: list of str, the arguments without the name of the program. None takes those of the
            process.

    Returns:
        int, the exit code: 0, or 1 after an error. An error is one line on standard error. Wrong
        usage is one line, too, and raises SystemExit with code 2, as usual with argparse.
    """
    arguments = _parser().parse_args(argv)
    return console.run(lambda: arguments.run(arguments))


def _parser():
    parser = console.Parser(
        "keras-seqattn", description="Sequence models: from Keras to small ONNX bundles."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_export(commands)
    _add_verify(commands)
    _add_generate(commands)
    _add_chat(commands)
    _add_translate(commands)
    _add_summarize(commands)
    _add_embed(commands)
    _add_inspect(commands)
    _add_quickstart(commands)
    return parser


def _command(commands, name, run, description):
    command = commands.add_parser(name, help=description, description=description)
    command.set_defaults(run=run)
    return command


def _add_export(commands):
    command = _command(commands, "export", _export, "write a model as ONNX")
    _add_source(command, "source")
    command.add_argument("output", metavar="OUT", help="bundle folder, or a file ending in .onnx")
    command.add_argument("--task", help="the model's head, such as embedding (default: from SRC)")
    command.add_argument("--target", default="ort", help="where the file runs (default: ort)")
    command.add_argument("--precision", default="fp32", help="what is rounded (default: fp32)")
    command.add_argument(
        "--opset", type=int, metavar="N", help="a lower opset than the target's, for older runtimes"
    )
    command.add_argument("--route", default="trace", help="trace (default) or tf2onnx")
    command.add_argument(
        "--no-verify", dest="verify", action="store_false", help="do not compare with Keras"
    )
    _add_lengths(command)
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    command.notes = _choices


def _choices():
    from keras_seqattn.onnx.precisions import PRECISIONS
    from keras_seqattn.onnx.targets import TARGETS

    rows = [f"{row.name} ({row.description})" for row in PRECISIONS.values()]
    return f"Targets: {', '.join(TARGETS)}. Precisions: {'; '.join(rows)}."


def _export(arguments):
    start_keras()
    from keras_seqattn import onnx
    from keras_seqattn.progress import Steps
    from keras_seqattn.sources import load_source

    steps = Steps(arguments.quiet)
    if arguments.quiet:
        warnings.simplefilter("ignore")
    with steps(f"Load {arguments.source}"):
        model = load_source(arguments.source, arguments.task, arguments.code)
    with steps(f"Export to {arguments.output}") as progress:
        report = onnx.export(
            model,
            arguments.output,
            target=arguments.target,
            precision=arguments.precision,
            opset=arguments.opset,
            verify=arguments.verify,
            lengths=arguments.lengths,
            route=arguments.route,
            progress=progress,
        )
    if report:
        steps.say(report.summary())


def _add_source(command, name, more=""):
    kinds = f"Hugging Face directory, .gguf file, or Keras model (.keras, .h5){more}"
    command.add_argument(name, metavar="SRC", help=kinds)
    code = "module or .py file with the custom layers of a Keras model"
    command.add_argument("--import", dest="code", metavar="CODE", help=code)


def _add_lengths(command):
    command.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        metavar="N",
        help="lengths of the inputs to compare (default: some up to 130)",
    )


def _add_verify(commands):
    command = _command(
        commands, "verify", _verify, "check a bundle, or compare it with its checkpoint"
    )
    command.add_argument("bundle", metavar="OUT", help="bundle folder; with --against, also a file")
    rest = ", to compare with (default: check the files' sums and use each file once)"
    _add_source(command, "--against", rest)
    _add_lengths(command)


def _verify(arguments):
    if arguments.lengths and arguments.against is None:
        raise InputError("--lengths says what to compare: name the checkpoint with --against")
    if arguments.against is None:
        from keras_seqattn import runtime

        runtime.load(arguments.bundle, check=True)
        print(f"{arguments.bundle}: the files are those that were verified, and each can be used")
        return
    start_keras()
    from keras_seqattn import onnx
    from keras_seqattn.sources import is_of_keras, load_source

    task = None if is_of_keras(arguments.against) else _task(arguments.bundle)
    model = load_source(arguments.against, task, arguments.code)
    report = onnx.verify(arguments.bundle, model, lengths=arguments.lengths)
    print(report.summary())
    return 0 if report.ok else 1


def _task(bundle):
    from keras_seqattn.inspection import inspect

    return inspect(bundle).metadata.get("keras_seqattn.task")


_SETTING_OPTIONS = (
    ("max-new-tokens", int, "maximum number of new tokens"),
    ("min-new-tokens", int, "minimum number of new tokens"),
    ("temperature", float, "sampling: below 1 prefers likely tokens more"),
    ("top-k", int, "sampling: only the N most likely tokens"),
    ("top-p", float, "sampling: only the likeliest tokens that together have probability X"),
    ("min-p", float, "sampling: only tokens with X times the probability of the likeliest"),
    ("repetition-penalty", float, "above 1 makes tokens that occurred less likely"),
    ("no-repeat-ngram-size", int, "no group of N tokens occurs twice"),
    ("seed", int, "sampling: the same seed gives the same text"),
)


def _add_settings(command):
    for name, kind, text in _SETTING_OPTIONS:
        metavar = "N" if kind is int else "X"
        command.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    sampling = "sample tokens (default: the setting of the bundle)"
    command.add_argument("--do-sample", action="store_const", const=True, help=sampling)
    ending = "end before this text; may be repeated"
    command.add_argument(
        "--stop", action="append", metavar="TEXT", dest="stop_strings", help=ending
    )


# The settings that generate and chat pass on; None takes the setting of the bundle.
_SETTINGS = [name.replace("-", "_") for name, *_ in _SETTING_OPTIONS]
_SETTINGS += ["do_sample", "stop_strings"]


_BEAMS = ("num_beams", "length_penalty")


def _settings(arguments, *more):
    return {name: getattr(arguments, name) for name in (*_SETTINGS, *more)}


def _add_generate(commands):
    command = _command(commands, "generate", _generate, "continue or rewrite a text")
    command.add_argument("bundle", metavar="OUT", help="bundle folder")
    command.add_argument("prompt", metavar="PROMPT")
    _add_beams(command)
    _add_settings(command)


def _add_beams(command):
    command.add_argument("--num-beams", type=int, metavar="N", help="number of beams")
    penalty = "beams: above 0 prefers longer texts"
    command.add_argument("--length-penalty", type=float, metavar="X", help=penalty)


def _generate(arguments):
    from keras_seqattn import generation, runtime

    model, settings = runtime.load(arguments.bundle), _settings(arguments, *_BEAMS)
    config = generation.GenerationConfig.from_settings(model.generation_defaults, **settings)
    if config.num_beams > 1:
        print(model.generate(arguments.prompt, **settings))
    else:
        _print_pieces(model.stream(arguments.prompt, **settings))


def _print_pieces(pieces):
    text = ""
    for piece in pieces:
        print(piece, end="", flush=True)
        text += piece
    print(flush=True)
    return text


def _add_chat(commands):
    command = _command(
        commands, "chat", _chat, "talk with a model, or answer lines of standard input"
    )
    command.add_argument("bundle", metavar="OUT", help="bundle folder")
    command.add_argument("--system", metavar="TEXT", help="the system message, before the talk")
    _add_settings(command)


def _chat(arguments):
    from keras_seqattn import runtime

    model, settings = runtime.load(arguments.bundle), _settings(arguments)
    interactive = console.has_terminal()
    if interactive:
        print("Talk with the model; an empty line or Ctrl-D ends.", file=sys.stderr)
    messages = []
    if arguments.system:
        messages.append({"role": "system", "content": arguments.system})
    for line in console.input_lines(interactive):
        messages.append({"role": "user", "content": line})
        answer = _print_pieces(model.chat(messages, stream=True, **settings))
        messages.append({"role": "assistant", "content": answer})


def _add_translate(commands):
    command = _command(commands, "translate", _translate, "translate texts, a line for each")
    _add_texts(command, "a text, or - for each line of standard input")
    command.add_argument("--source", metavar="LANGUAGE", help="for models with several languages")
    command.add_argument("--target", metavar="LANGUAGE", help="for models with several languages")
    _add_beams(command)
    _add_settings(command)


def _translate(arguments):
    texts = [line for text in arguments.texts for line in _read(text).splitlines() if line.strip()]
    _rewrite(arguments, "translate", texts, source=arguments.source, target=arguments.target)


def _add_summarize(commands):
    command = _command(commands, "summarize", _summarize, "summarize texts, a line for each")
    _add_texts(command, "a text, or - for all of standard input")
    _add_beams(command)
    _add_settings(command)


def _summarize(arguments):
    _rewrite(arguments, "summarize", [_read(text) for text in arguments.texts])


def _add_texts(command, description):
    command.add_argument("bundle", metavar="OUT", help="bundle folder")
    command.add_argument("texts", metavar="TEXT", nargs="+", help=description)


def _read(text):
    return console.read_input() if text == "-" else text


def _rewrite(arguments, method, texts, **options):
    from keras_seqattn import runtime

    model = runtime.load(arguments.bundle)
    for answer in getattr(model, method)(texts, **options, **_settings(arguments, *_BEAMS)):
        print(answer)


def _add_embed(commands):
    command = _command(commands, "embed", _embed, "turn texts into vectors (JSON, or NumPy's .npy)")
    command.add_argument("bundle", metavar="OUT", help="bundle folder")
    command.add_argument("texts", metavar="TEXT", nargs="+")
    command.add_argument("--output", metavar="FILE", help="write a float32 .npy file, not JSON")


def _embed(arguments):
    if arguments.output and not arguments.output.endswith(".npy"):
        raise InputError(f"--output {arguments.output}: the name must end in .npy")
    import numpy as np

    from keras_seqattn import runtime

    place = _output(arguments.output) if arguments.output else None
    vectors = np.asarray(runtime.load(arguments.bundle).embed(arguments.texts), "float32")
    if place:
        with place.staged() as folder, open(Path(folder) / place.name, "wb") as file:
            np.save(file, vectors)
    else:
        print(json.dumps(vectors.tolist()))


def _output(path):
    from keras_seqattn.files import FileTarget

    place = FileTarget(path, InputError)
    if not os.path.isdir(os.path.dirname(place.path)):
        raise InputError(f"--output {path}: there is no folder {os.path.dirname(place.path)}")
    return place


def _add_inspect(commands):
    command = _command(commands, "inspect", _inspect, "show what a bundle holds")
    command.add_argument("bundle", metavar="OUT", help="bundle folder or .onnx file")


def _inspect(arguments):
    from keras_seqattn.inspection import inspect

    print(inspect(arguments.bundle))


def _add_quickstart(commands):
    description = "export two real models, ask one a question, and search with the other"
    command = _command(commands, "quickstart", _quickstart, description)
    command.add_argument("--output", metavar="FOLDER", help="where the bundles go (default: cache)")


def _quickstart(arguments):
    start_keras()
    from keras_seqattn.quickstart import quickstart

    quickstart(arguments.output)


if __name__ == "__main__":
    sys.exit(main())
