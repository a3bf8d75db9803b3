"""Radio physics as pure functions: tensors in, tensors out, any leading batch shape, each citing its equation."""
