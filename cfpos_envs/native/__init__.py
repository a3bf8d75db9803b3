"""Compiled kernels: C++ files built once per machine by the compiler that is there, called through ``ctypes``."""
