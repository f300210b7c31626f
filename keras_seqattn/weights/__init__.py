"""Reading and writing checkpoints, and the engine that maps names and axes to variables."""
