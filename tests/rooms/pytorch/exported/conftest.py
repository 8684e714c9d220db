"""Every exported program that the tests look at, exported once."""

from pathlib import Path

import pytest
import torch
from torch.export import Dim

from tests.rooms.pytorch.exported import models
from tests.rooms.pytorch.exported.models import export, ids, seeded


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of them."""
    folder = tmp_path_factory.mktemp("exports")
    x, image = torch.randn(2, 7), torch.randn(2, 3, 4, 4)
    anything = ({0: Dim.AUTO},)
    export(seeded(models.Lm), ids(), folder / "lm.pt2")
    export(seeded(models.Lm, padding=0), ids(), folder / "padded.pt2")
    export(seeded(models.Lm).bfloat16(), ids(), folder / "half.pt2")
    export(seeded(models.Lm, tied=True), ids(), folder / "native.pt2")
    export(seeded(models.Lm, tied=True), ids(), folder / "strict.pt2", strict=True)
    export(
        seeded(models.Lm),
        ids(),
        folder / "signed.pt2",
        preserve_module_call_signature=("embed", "decoder"),
    )
    export(seeded(models.Autoencoder), x, folder / "auto.pt2", dynamic_shapes=anything)
    export(seeded(models.Autoencoder), x, folder / "core.pt2", decomposed=True)
    square = seeded(models.Autoencoder, sizes=(5, 5))
    export(square, torch.randn(2, 5), folder / "square.pt2")
    both = ({0: Dim.DYNAMIC, 1: Dim.AUTO},)
    export(seeded(models.Gpt), ids(), folder / "gpt.pt2", dynamic_shapes=both)
    export(seeded(models.Conv).train(), image, folder / "conv.pt2")
    export(seeded(models.Functions), ids(), folder / "functions.pt2")
    export(seeded(models.Three), ids(), folder / "three.pt2")
    export(seeded(models.Three, tied=True), ids(), folder / "three_native.pt2")
    export(seeded(models.Three, tied=True), ids(), folder / "three_strict.pt2", strict=True)
    export(seeded(models.Root), ids(), folder / "root.pt2")
    export(seeded(models.Spare), ids(), folder / "spare.pt2")
    export(seeded(models.Stacked), torch.randn(2, 5, 3), folder / "stacked.pt2")
    export(seeded(models.Renorm), ids(), folder / "renorm.pt2")
    return folder
