"""`python -m tiesurgeon` is the same as `tiesurgeon`."""

from tiesurgeon.cli import main

main(prog_name="tiesurgeon")
