"""`python -m rayscale`: the command line."""

from rayscale.cli.verbs import main

if __name__ == "__main__":
    main()
