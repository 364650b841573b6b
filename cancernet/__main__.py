"""`python -m cancernet`."""

from cancernet.cli import console

if __name__ == "__main__":
    console()
