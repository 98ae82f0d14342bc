"""A model's folder, before anything in it is read by a library."""

import json
from pathlib import Path
from typing import Any

__all__ = ["check_folder"]


def check_folder(folder: Path) -> int:
    """The bytes of its files.

    Raises:
        ValueError: if it holds an adapter, something that is not a plain file, or an index that leads elsewhere.
    """
    files = [entry for entry in folder.iterdir() if not entry.is_dir()]
    strange = next((entry for entry in files if not entry.is_file()), None)
    if strange is not None:  # reading a pipe or a device may never end
        raise ValueError(f"{strange} is not a file that can be read; a model's folder holds plain files")
    if (folder / "adapter_config.json").is_file():
        base = _read_json(folder / "adapter_config.json").get("base_model_name_or_path", "its base model")
        raise ValueError(
            f"{folder} holds an adapter (LoRA and the like) of {base}, not a model; merge the two with peft: "
            "AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(MERGED), save the "
            "base model's tokenizer into MERGED too, and give that"
        )
    for index in folder.glob("*.index.json"):
        _check_index(index)
    return sum(file.stat().st_size for file in files)


def _check_index(index: Path) -> None:
    shards = _read_json(index).get("weight_map")
    names = list(shards.values()) if isinstance(shards, dict) else [None]
    wrong = next((name for name in names if not isinstance(name, str) or Path(name).name != name), None)
    if wrong is not None or None in names:
        raise ValueError(f'{index} leads to {wrong!r}; it must name files of its own folder under "weight_map"')


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
