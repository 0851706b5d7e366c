"""Model names -> `ModelShape`: presets, a Hugging Face `config.json`, or a YAML shape."""

import functools
import json
from pathlib import Path
from typing import Any

from jaxscale.catalog.strict import build, is_folder, parse_yaml, read_text, reject_unknown
from jaxscale.errors import CatalogError, SpecError, nearest
from jaxscale.types import ModelShape


def model_names() -> tuple[str, ...]:
    """Names of the preset models, smallest family first as the catalogue lists them."""
    return tuple(_presets())


@functools.cache
def _presets() -> dict[str, Any]:
    path = Path(__file__).with_name("models.yaml")
    document = parse_yaml(read_text(path), where=path.name)
    reject_unknown(document, ("families", "models"), where=path.name)
    return document["models"]


def load_model(name_or_path: str) -> ModelShape:
    """Read a model from a preset's name, a Hugging Face `config.json` (or the folder that holds it), or a YAML shape.

    >>> load_model("llama3-8b").num_kv_heads
    8
    """
    preset = _known().get(_canonical(name_or_path))
    if preset is not None:
        where = f"model {preset!r}"
        return build(ModelShape, _presets()[preset], where=where, name=preset)
    path = Path(name_or_path)
    if is_folder(name_or_path):
        path = path / "config.json"
    if path.suffix.lower() == ".json":
        return _from_config(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        values = parse_yaml(read_text(path), where=str(path))
        return build(ModelShape, {"name": path.stem, **values}, where=str(path))
    raise CatalogError(
        f"model {name_or_path!r} is unknown; give a preset (`jaxscale models` lists {len(_presets())}), "
        f"a config.json or a .yaml shape.{nearest(name_or_path, _presets())}"
    )


@functools.cache
def _known() -> dict[str, str]:
    """Presets by the spelling that `_canonical` gives their names."""
    return {_canonical(name): name for name in _presets()}


def _canonical(name: str) -> str:
    """Spelling that does not matter: case, and whether a dash, an underscore or nothing stands between words."""
    return name.strip().lower().translate(str.maketrans("", "", "-_ "))


def _from_config(path: Path) -> ModelShape:
    from jaxscale.catalog.hf import shape_from_config

    try:
        config = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpecError(f"{path}: not valid JSON: {error}") from error
    name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
    return shape_from_config(config, name=name, where=str(path))
