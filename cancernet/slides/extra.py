"""Packages of the extra `slides`, imported in one place so that a missing one is said in one line."""

from cancernet.errors import InputError

try:
    import shapely
    import tifffile
except ModuleNotFoundError as error:
    raise InputError(f"maps need {error.name}, which is not installed: pip install 'cancernet[slides]'") from error

__all__ = ["shapely", "tifffile"]
