"""`python -m gatebook.sinks STATE`: the follower, as the supervisor starts it."""

import sys

from gatebook.sinks.process import main

main(sys.argv[1:])
