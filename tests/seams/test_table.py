"""Every line of the table names something that the installed transformers has."""

import re
from pathlib import Path

import pytest
import transformers

from gladient.seams import architectures
from gladient.seams.architectures import CONVOLUTION, Architecture

LIBRARY = Path(transformers.__file__).parents[1]
TABLE = {name: found for name, found in vars(architectures).items() if isinstance(found, Architecture)}


@pytest.mark.parametrize("name", TABLE)
def test_what_the_table_names_is_there(name: str) -> None:
    architecture = TABLE[name]
    sources = [LIBRARY.joinpath(*home.split(".")).with_suffix(".py").read_text("utf-8") for home in architecture.homes]
    for source in sources:
        for function in filter(None, (architecture.scan, architecture.step)):
            assert re.search(rf"^ *def {function}\(", source, re.MULTILINE)
        for part in architecture.parts:
            assert re.search(rf"self\.{part} =|register_buffer\(\"{part}\"", source)
        if architecture.step:
            assert f"def {CONVOLUTION}(" in source
    assert not architecture.whole or any(architecture.whole in source for source in sources)
    held = {layer for layer in architecture.layers for source in sources if f"class {layer}(" in source}
    assert held == set(architecture.layers)
