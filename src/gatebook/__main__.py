"""`python -m gatebook` is the `gatebook` command."""

from gatebook.cli import main

if __name__ == "__main__":
    main()
