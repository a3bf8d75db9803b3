"""``python -m cfpos`` is the console command ``cfpos``."""

from cfpos.cli import main

main()
