"""What was measured, in one file that is complete after every cell."""

import dataclasses
import json
import os

from keras_seqattn.errors import InputError


class Results:
    """Cells by stage and name, kept in a file; an interrupted study goes on with what is there.

    Args:
        path: pathlib.Path of the .json file, made if absent.
        settings: Settings; a file holds the results of one choice.

    Raises:
        InputError: the file holds results of other settings.
    """

    def __init__(self, path, settings):
        self.path = path
        chosen = json.loads(json.dumps(dataclasses.asdict(settings)))
        self.content = {"settings": chosen, "machine": {}, "cells": {}}
        self._machine = None
        if path.exists():
            self.content = json.loads(path.read_text("utf-8"))
            if self.content["settings"] != chosen:
                raise InputError(f"{path} holds results of other settings; choose another output")

    def stage(self, name):
        """dict of the cells of a stage, by name."""
        return self.content["cells"].get(name, {})

    def add(self, stage, name, cell):
        """Keep a cell.

        Args:
            stage, name: str.
            cell: what JSON can hold.
        """
        self.content["cells"].setdefault(stage, {})[name] = cell
        self.content["machine"] = self._machine or self.content["machine"]
        self._write()

    def describe(self, machine):
        """Say what is measured on, which is kept with the next cell."""
        self._machine = machine

    def _write(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1) + "\n", "utf-8")
        os.replace(part, self.path)
