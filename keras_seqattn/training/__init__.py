"""Objectives, losses, metrics, schedules, batches and data splits for `compile` and `fit`."""

from keras_seqattn.training.split import Split, split_pairs

__all__ = ["Split", "split_pairs"]
