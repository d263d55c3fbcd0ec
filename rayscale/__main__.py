"""`python -m rayscale`: the command line."""

from rayscale.cli import main

if __name__ == "__main__":
    main()
