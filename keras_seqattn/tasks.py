"""The tasks of models: a row for each task. Checkpoints and files use the same names."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: the name in the metadata of a file.
        generates: whether the model generates tokens, step by step.
        reads_source: whether it encodes a source first. Such a model has an encoder and a decoder.
        output: None, or the role and the number of axes of the output that the runtime reads.
        method: None, or the name of the method of a loaded bundle that takes a text.
    """

    name: str
    generates: bool = False
    reads_source: bool = False
    output: tuple | None = None
    method: str | None = None

    @property
    def graphs(self):
        """The names of the files without suffix. Other runtimes expect these names."""
        return ENCODER_DECODER if self.reads_source else (MODEL,)


MODEL = "model"
ENCODER_DECODER = ENCODER, DECODER = "encoder_model", "decoder_model_merged"
CAUSAL_LM = Task("causal_lm", generates=True, method="generate")
SEQ2SEQ_LM = Task("seq2seq_lm", generates=True, reads_source=True, method="generate")
EMBEDDING = Task("embedding", output=("hidden_states", 3), method="embed")
SEQUENCE_CLASSIFICATION = Task("sequence_classification", output=("logits", 2), method="classify")
TOKEN_CLASSIFICATION = Task("token_classification", output=("logits", 3), method="tag")
_TASKS = {
    task.name: task
    for task in (CAUSAL_LM, SEQ2SEQ_LM, EMBEDDING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION)
}


def find_task(name):
    """The `Task` with that name. Another name, or None, gives a task that can only be run."""
    return _TASKS.get(name) or Task(name or "unknown")


def task_of_model(model):
    """The `Task` of a Keras model. A model without a task gets one that can only be run."""
    return find_task(getattr(model, "task", None))
