"""`python -m abaw`."""

from abaw.cli import main

main()
