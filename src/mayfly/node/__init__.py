"""The service of one machine: admission, the pipeline of an execution, and its record."""
