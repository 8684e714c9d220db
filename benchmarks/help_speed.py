"""How much CPU `tiesurgeon --help` takes, against Python itself and against importing numpy."""

from measure import PYTHON, TIESURGEON, compare

ROUNDS = 15
PROMISED = 0.2  # seconds of CPU


def main() -> None:
    bare, numpy, program = compare(
        [[*PYTHON, "pass"], [*PYTHON, "import numpy"], [*TIESURGEON, "--help"]], ROUNDS
    )
    print(f"python -c pass            {bare}")
    print(f"python -c 'import numpy'  {numpy}")
    print(f"tiesurgeon --help         {program}")
    print(f"  {program.cpu / bare.cpu:.1f} times the CPU of starting Python")
    print(f"  {program.cpu / numpy.cpu:.2f} times the CPU of importing numpy")
    print(f"  {program.cpu / PROMISED:.2f} of the {PROMISED} s of CPU that are promised")


if __name__ == "__main__":
    main()
