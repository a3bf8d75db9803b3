"""The pictures of ``scripts/plot.py``: what is computed for them (tested) and how it is drawn."""
