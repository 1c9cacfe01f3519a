"""`python -m gatebook.recorder STATE`: what the supervisor starts."""

import sys

from gatebook.recorder.process import main

main(sys.argv[1:])
