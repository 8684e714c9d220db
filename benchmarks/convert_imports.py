"""What `tiesurgeon convert --to torch --proof static` imports, against importing the frameworks."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import PYTHON, compare

ROUNDS = 5
MODEL = Path(__file__).parent.parent / "sample_models" / "char_lm.h5"

CONVERT = """
import sys
from tiesurgeon.cli import main
main(
    ["convert", sys.argv[1], "--to", "torch", "--proof", "static", "--force", "-o", sys.argv[2]],
    standalone_mode=False,
)
"""
LIST = """
frameworks = {"tensorflow", "keras", "tf_keras", "torch", "onnx", "onnxruntime"}
print("frameworks:", *sorted(frameworks & set(sys.modules)))
"""


def main() -> None:
    with TemporaryDirectory() as folder:
        paths = [str(MODEL), str(Path(folder) / "converted")]
        printed = subprocess.check_output([*PYTHON, CONVERT + LIST, *paths], text=True)
        imported = printed.splitlines()[-1].removeprefix("frameworks:").strip()
        convert, torch, keras = compare(
            [
                [*PYTHON, CONVERT, *paths],
                [*PYTHON, "import torch"],
                [*PYTHON, "import keras"],
            ],
            ROUNDS,
        )
    print(f"converting {MODEL.name} to PyTorch; medians of {ROUNDS} fresh processes")
    print(f"convert --to torch --proof static  {convert}")
    print(f"import torch                       {torch}")
    print(f"import keras                       {keras}")
    print(f"  frameworks imported while converting: {imported or 'none'}")
    print(f"  it takes {convert.wall / torch.wall:.2f} times as long as importing torch alone,")
    print(f"  {convert.wall / keras.wall:.2f} times as long as importing keras alone")


if __name__ == "__main__":
    main()
