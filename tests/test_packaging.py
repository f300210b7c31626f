"""What holds the project together: the direction of imports, the README's lines, the extras."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.backend_free

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_seqattn"

# What each part may import from the package; itself and the base are open to all.
BASE = {"errors", "arguments", "memory", "json_objects", "tasks", "__version__"}
ALLOWED = {
    "ops": set(),
    "layers": {"ops"},
    "weights": {"files"},
    "models": {"ops", "layers", "weights", "generation", "files", "ports"},
    "onnx": {"ops", "layers", "weights", "models", "generation", "runtime", "files", "ports"},
    "training": {"ops", "layers", "models", "generation"},
    "analysis": {"ops", "layers", "models", "generation", "runtime"},
    "ports": set(),
    "tasks": set(),
    "generation": set(),
    "runtime": {"generation", "files", "ports"},
    "files": set(),
    "errors": set(),
    "arguments": set(),
    "json_objects": set(),
    "memory": set(),
    "progress": set(),
    "samples": {"files"},
    "inspection": {"runtime", "ports"},
    "quickstart": {"models", "onnx", "runtime", "samples", "progress", "files"},
    "console": set(),
    "cli": {
        *("console", "models", "onnx", "generation", "runtime", "inspection", "quickstart"),
        *("progress", "files", "sources", "backends"),
    },
    "sources": {"models", "onnx"},
    "backends": set(),
}
# `keras_seqattn.generate` drives a Keras model; it imports what it needs when it is called.
EXCEPTIONS = {("generation/api.py", "models"), ("generation/api.py", "runtime")}
BACKENDS = {"keras", "tensorflow", "torch", "jax", "jaxlib", "keras_hub", "tf2onnx"}
KERAS_FREE = {"files", "generation", "runtime", "errors", "arguments", "memory", "json_objects"}
KERAS_FREE |= {"ports", "tasks", "progress", "samples", "inspection", "console", "cli", "backends"}


def module_paths():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """Name of the subpackage or top-level module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Dotted names of everything that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path", module_paths(), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_imports_point_one_way(path):
    part = part_of(path)
    if part == "__init__":
        return
    allowed = ALLOWED[part] | {part} | BASE
    for name in imports(path):
        head, *rest = name.split(".")
        if head == "keras_seqattn" and rest:
            place = path.relative_to(PACKAGE).as_posix()
            assert rest[0] in allowed or (place, rest[0]) in EXCEPTIONS, f"imports {name}"
        if part in KERAS_FREE:
            assert head not in BACKENDS, f"imports {name}"


def families():
    """The names in `FAMILIES`, read without importing the models."""
    tree = ast.parse((PACKAGE / "models" / "registry.py").read_text("utf-8"))
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "FAMILIES"
    ]
    return ast.literal_eval(value)


def test_families_import_no_families():
    names = {f"keras_seqattn.models.{name}" for name in families()}
    for name in sorted(names):
        path = ROOT / Path(*name.split(".")).with_suffix(".py")
        assert not names & set(imports(path)), f"{name} imports another family"


def import_graph():
    """Module name -> the modules of ours that it imports, also inside functions."""
    modules = {}
    for path in module_paths():
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    return {name: set(imported(path, modules)) - {name} for name, path in modules.items()}


def imported(path, modules):
    """Those of some modules that a file imports: `from package import module` is the module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in full]
        yield from (name for name in names if name in modules)


def circle(graph):
    """Modules of which each imports the next and the last the first; empty if there are none."""
    done = set()

    def search(name, trail):
        if name in trail:
            return trail[trail.index(name) :]
        if name in done:
            return []
        found = next(filter(None, (search(n, [*trail, name]) for n in sorted(graph[name]))), [])
        done.add(name)
        return found

    return next(filter(None, (search(name, []) for name in sorted(graph))), [])


def test_no_module_imports_itself_through_others():
    assert circle(import_graph()) == []


def test_the_search_for_circles_finds_one():
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d"]


MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 50


def long_parts(source):
    """What in a file is too long: itself, and the names of functions, beside their docstrings."""
    if source.count("\n") > MOST_LINES_OF_A_FILE:
        yield f"{source.count(chr(10))} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{node.name} has {lines} lines"


def test_files_and_functions_are_short():
    found = {
        path.relative_to(PACKAGE).as_posix(): list(long_parts(path.read_text("utf-8")))
        for path in module_paths()
    }
    assert not {name: parts for name, parts in found.items() if parts}


def test_the_check_of_lengths_sees_what_is_long():
    body = "    x = 1\n" * 51
    docstring = '    """' + "a\n" * 60 + '    """\n'
    assert list(long_parts("def f():\n" + body)) == ["f has 52 lines"]
    assert list(long_parts("def f():\n" + docstring + body[: 49 * 10])) == []
    assert list(long_parts("x = 1\n" * 401)) == ["401 lines"]


def texts_of(source):
    """The texts that code holds, docstrings left out."""
    tree = ast.parse(source)
    places = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, places) and ast.get_docstring(node, clean=False) is not None
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield node.value


NAMES_OF_PASTS = re.compile(r"past_key_values|past_states|present_states|\bpresent\.")


def test_one_module_spells_the_names_of_caches_and_states():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in module_paths()
        if any(NAMES_OF_PASTS.search(text) for text in texts_of(path.read_text("utf-8")))
    }
    assert found == {"ports/names.py"}


def test_the_search_for_names_reads_code_and_no_docstrings():
    source = 'def f(i):\n    """present.0.key"""\n    return f"past_states.{i}.sum"\n'
    assert [t for t in texts_of(source) if NAMES_OF_PASTS.search(t)] == ["past_states."]


# What else reads texts by patterns, where names of a graph's values are known, and which texts.
PATTERNS_OF_OTHERS = {
    "models/family.py": "names of weights",
    "models/sizes.py": "sizes of weights",
    "onnx/data_files.py": "names of files",
    "onnx/refusals.py": "messages",
    "onnx/targets.py": "names of targets",
    "runtime/template_budget.py": "templates",
    "runtime/template_costs.py": "templates",
    "runtime/template_environment.py": "templates",
}


def test_one_module_reads_names_of_values_by_patterns():
    parts = {"onnx", "runtime", "generation", "models", "ports", "analysis", "inspection", "tasks"}
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in module_paths()
        if part_of(path) in parts and "re" in imports(path)
    }
    assert found == {"ports/names.py", *PATTERNS_OF_OTHERS}


def compared_texts(source):
    """The texts with which code compares something, also as members of a tuple, list or set."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                for part in getattr(side, "elts", [side]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_tasks_are_rows_and_their_names_are_not_compared():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in module_paths()
        if "seq2seq_lm" in compared_texts(path.read_text("utf-8"))
    }
    assert found <= {"tasks.py"}
    assert list(compared_texts('a == "x" or b in ("y", 3)')) == ["x", "y"]


def test_one_file_reads_private_keras():
    private = {
        path.relative_to(PACKAGE).as_posix()
        for path in module_paths()
        if any(re.match(r"keras\.src\b", name) for name in imports(path))
    }
    assert private <= {"onnx/keras_internals.py"}


def test_the_import_check_sees_what_it_forbids(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from keras.src import ops\n    import torch.nn as nn\n")
    assert set(imports(file)) == {"keras.src", "keras.src.ops", "torch.nn"}


@pytest.mark.parametrize("module", sorted(KERAS_FREE))
def test_import_without_keras(module):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(BACKENDS)!r})); "
        f"import keras_seqattn.{module}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "line",
    [
        'pip install -e ".[tensorflow,quickstart]" && keras-seqattn quickstart',
        'pip install -e ".[test]"',
    ],
)
def test_ci_installs_by_the_readme(line):
    assert line in (ROOT / "README.md").read_text("utf-8")
    assert line in (ROOT / ".ci" / "run").read_text("utf-8")


def test_extras_that_repeat_others_agree():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = {
        name: set(value.strip().splitlines())
        for name, value in config["options.extras_require"].items()
    }
    for name in ("tensorflow", "jax", "gguf", "tf2onnx", "train", "quickstart"):
        assert extras[name] <= extras["test"], name
