"""Where propagation paths come from: the embedded city, stored data sets, the ray tracer."""
