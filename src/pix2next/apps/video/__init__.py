"""A video in, its NIR out: reading frames, encoding them by segments, joining the segments with the sound.

Needs PyAV. Raises: ConfigError at import if it is not there.
"""

from pix2next.errors import ConfigError, one_line

try:
    import av  # noqa: F401
except ImportError as error:
    raise ConfigError(f"video needs PyAV ({one_line(error)}); pip install 'pix2next[video]'") from error
