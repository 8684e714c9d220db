#!/bin/sh
# The main job on two sample models, from looking at them to running them in PyTorch.
# `make demo` runs this; what it writes stays in build/demo.
set -eu

samples=$(cd "$(dirname "$0")" && pwd)
folder=$samples/../build/demo
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
cp "$samples/char_lm_equal.h5" "$samples/torch_lm_equal.pt" "$samples/torch_lm.py" .

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

run() {
    printf '\n%s$ %s%s\n' "$bold" "$*" "$plain"
    "$@"
}

say "1. Look. char_lm_equal.h5 is a small language model, trained on Python's docstrings and saved
   by Keras. No framework is imported, and no code of the model is run."
run tiesurgeon inspect char_lm_equal.h5

say "2. Tie. The embedding and the output layer hold the same matrix, stored twice: as it is they
   would train apart. Now they become one variable, in a new file that plain Keras opens."
run tiesurgeon tie char_lm_equal.h5 --pair embedding dense

say "3. Convert. The tied model becomes a PyTorch module that reads as if written by hand."
run tiesurgeon convert char_lm_equal.tied.h5 --to torch -o char_lm_torch
run cat char_lm_torch/model.py

say "4. Use. Only torch and safetensors are needed. What has the model learnt to write?"
cat > write.py <<'EOP'
import string
import sys

import torch

sys.path.insert(0, "char_lm_torch")
import model

characters = "\0\n " + string.ascii_lowercase + string.digits + string.punctuation
network = model.load()
torch.manual_seed(2)
for start in ("return the ", "raise an exception if ", "a new file "):
    text = start
    while "\0" not in text and len(text) < 200:  # 0 ends a docstring
        ids = torch.tensor([[characters.index(c) for c in text[-64:]]])
        with torch.no_grad():
            chances = network(ids)[0, -1] ** 2  # a little more sure of itself than it is
        text += characters[torch.multinomial(chances, 1).item()]
    print("-", *text.rstrip("\0").split())
EOP
run python write.py

say "5. A PyTorch file. torch_lm_equal.pt is a pickled module: opening it in PyTorch runs its code,
   looking at it here does not. Its matrix became two Parameters when it was saved."
run tiesurgeon inspect torch_lm_equal.pt

say "6. Tie it. Both names lead to one Parameter in the new file. For the proof its class is run, which
   stands in torch_lm.py: five steps of Adam must end where a model tied by hand in PyTorch ends."
run tiesurgeon tie torch_lm_equal.pt --pair embed decoder --trust-code

say "All of it is in build/demo. Now try: .venv/bin/tiesurgeon inspect your_own_model.h5"
