"""The steps that must be one step inside Redis: `lua/`."""

from importlib.resources import files


def script(name: str) -> str:
    """The text of `lua/{name}.lua`."""
    return files("redis_ingest").joinpath("lua", f"{name}.lua").read_text()
