"""`python -m gatebook.portal STATE`: what the supervisor starts."""

import sys

from gatebook.portal.process import main

main(sys.argv[1:])
