"""The run-time type checker of the test suite: beartype, with ints welcome where floats are asked for (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
