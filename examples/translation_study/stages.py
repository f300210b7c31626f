"""Results in a folder, so that an interrupted study goes on where it stopped."""

import dataclasses
import hashlib
import json
import os
import time

from keras_seqattn.errors import InputError


class Stages:
    """Runs each named stage once; what it found is kept in the folder.

    Args:
        folder: pathlib.Path, made if absent.
        settings: Settings; a folder holds the results of one choice.

    Raises:
        InputError: the folder holds results of other settings.
    """

    def __init__(self, folder, settings):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(settings), indent=1)
        path = folder / "settings.json"
        if path.exists() and path.read_text("utf-8") != text:
            raise InputError(f"{folder} holds results of other settings; choose another folder")
        path.write_text(text, "utf-8")
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def __call__(self, name, function, *arguments):
        """The result of `function(*arguments)`, as JSON keeps it, from the folder if it is there.

        Args:
            name: str, of the stage and its file.
            function: returns what JSON can hold.
            *arguments: of the function.
        """
        path = self.folder / f"{name}.json"
        if path.exists():
            print(f"{name}: reused from {path}", flush=True)
            return json.loads(path.read_text("utf-8"))["result"]
        start = time.perf_counter()
        result = function(*arguments)
        seconds = time.perf_counter() - start
        text = json.dumps({"seconds": round(seconds, 1), "result": result}, indent=1)
        part = path.with_suffix(".part")
        part.write_text(text, "utf-8")
        os.replace(part, path)
        print(f"{name}: {seconds:.1f} s", flush=True)
        return json.loads(text)["result"]

    def seconds(self):
        """dict stage -> seconds that it took when it ran."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            content = json.loads(path.read_text("utf-8"))
            if "result" in content:
                found[path.stem] = content["seconds"]
        return found
