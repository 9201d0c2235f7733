"""One picture from standard input, or to standard output: nothing but its bytes goes through either."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pix2next.apps.bulk import BulkResult, Tally, unlike
from pix2next.apps.events import Done, Existing, Failed, OnEvent, Start
from pix2next.apps.jobs import Output, names_a_file
from pix2next.errors import ConfigError, ImageError
from pix2next.images import check_holds, decode_rgb, encode_nir, ending_of, write_nir
from pix2next.model.domain import Distance
from pix2next.translate import Translator

STREAM = "-"
"""What stands for standard input and standard output."""
_NAME = "standard input"


def translate_stream(
    source: str,
    target: str,
    translator: Translator,
    output: Output | None = None,
    *,
    read: Callable[[], bytes],
    write: Callable[[bytes], object],
    on_event: OnEvent | None = None,
) -> BulkResult:
    """Translate one picture, one of whose ends or both are `-`.

    What goes to standard output has the format of `output`, or else that of the picture that came.

    Args:
        source: a file, or `-` for standard input.
        target: a file, or `-` for standard output.
        translator: what the picture goes through.
        output: format and quality, and whether a file that is there is replaced.
        read: gives all of standard input; called if `source` is `-`.
        write: puts bytes to standard output; called once if `target` is `-`.
        on_event: told what happens.

    Raises:
        ConfigError: the picture would have no name, or `output` contradicts `target`.
    """
    output = output or Output()
    refuse_nameless(source, target, output)
    tally = Tally(on_event)
    tally(Start(1, target))
    if target != STREAM and not output.overwrite and Path(target).is_file():
        tally(Existing(source, target))
        return tally.end()
    name = _NAME if source == STREAM else source
    try:
        data = read() if source == STREAM else _bytes_of(Path(source))
        nir, ending, seconds, distance = _translate(data, name, target, translator, output)
        if target == STREAM:
            write(encode_nir(nir, ending, output.quality))
        else:
            write_nir(target, nir, output.quality)
        tally(Done(source, target, nir.shape[1], nir.shape[0], seconds))
        for event in unlike(source, distance):
            tally(event)
    except (ImageError, MemoryError) as error:
        reason = str(error) if isinstance(error, ImageError) else "too little memory to hold the picture"
        tally(Failed(source, target, reason if name in reason else f"{name}: {reason}"))
    return tally.end()


def refuse_nameless(source: str, target: str, output: Output) -> None:
    """Raises: ConfigError if nothing says what to call the result, or too much does."""
    if target == STREAM:
        if output.suffix:
            raise ConfigError(f"standard output has no name that the suffix {output.suffix} could be put to")
        if Path(source).is_dir():
            raise ConfigError(f"standard output takes one picture, and {source} is a folder; give a folder to write to")
    elif not names_a_file(Path(target)):
        raise ConfigError(
            f"a picture from standard input has no name; give it one, as {Path(target) / 'nir.png'}, or -"
        )
    else:
        output.refuse_other_name(Path(target))


def _translate(
    data: bytes, name: str, target: str, translator: Translator, output: Output
) -> tuple[np.ndarray, str, float, Distance | None]:
    """The NIR picture, the ending of the format it would have in a stream, the network's seconds, and the distance."""
    rgb = decode_rgb(data, name, translator.value_range)
    ending = f".{output.out_format}" if output.out_format else ending_of(data, name)
    check_holds(Path(f"standard output{ending}") if target == STREAM else Path(target), rgb.dtype, rgb.shape[:2])
    begun = time.perf_counter()
    nir = translator(rgb)
    distance = translator.distance(rgb)
    return nir, ending, round(time.perf_counter() - begun, 4), distance


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from None
