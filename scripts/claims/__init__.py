"""What the sources claim beside what is kept in ``docs/results``: text and verdict follow from the kept numbers."""
