"""`python -m gatebook.guard STATE NUMBER`: what the supervisor starts."""

import sys

from gatebook.guard.process import main

main(sys.argv[1:])
