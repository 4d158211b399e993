"""The stages of the pipeline: each turns a configuration into a `training.Task` and its result."""
