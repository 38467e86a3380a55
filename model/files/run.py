"""The command: images are decoded in parallel, captioned in batches, and written in order."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import io
import itertools
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from model.captioner import Captioner
from model.captions import CaptionResult
from model.checkpoint import load_checkpoint, read_config
from model.device import choose_policy
from model.errors import ConfigError, ImageError
from model.fields import flag_values
from model.files.listing import ImageFile, Listing, list_images, read_error
from model.files.outputs import Captioned, FilesBeside
from model.files.progress import ProgressLine
from model.files.targets import decorated, needs_words, open_outputs
from model.geometry import ImageView
from model.hub import checkpoint_folder
from model.image import LOCAL_IMAGE_LIMITS, ImageLimits, decode_image, prepare
from model.options import GenerationOptions

_MAX_NAME_BYTES = 255  # of usual file systems
_DECODING_THREADS = 2
_INTERRUPTED = 130  # exit status after SIGINT, as shells have it


def caption_files(options: argparse.Namespace) -> int:
    """Caption the images that the command line names.

    Returns the exit status: 0 all, 1 some failed or no images, 2 wrong use, 130 interrupted. Raises CaptionerError, OSError if
    an output cannot be written.
    """
    warnings.filterwarnings("ignore", module="PIL")  # of metadata that Pillow does not understand
    listing = list_images(options.images)
    folder = checkpoint_folder(options.checkpoint)
    try:
        generation = _generation(options, read_config(folder).generation)
        progress = ProgressLine()
        outputs = open_outputs(options, generation.num_return_sequences, progress.clear)
    except ConfigError as error:
        print(f"model: {error}", file=sys.stderr)
        return 2
    num_captioned = num_existing = 0
    try:
        _leave_out_clashes(listing, [output for output in outputs if isinstance(output, FilesBeside)])
        images = [file for file in listing.images if not all(output.has(file) for output in outputs)]
        num_existing = len(listing.images) - len(images)
        num_unreadable = len(listing.failed)
        if images:
            captioner = _load(folder, options)
            progress.start(len(images))
            for captioned in _captioned(images, captioner, generation, options, listing):
                for output in outputs:
                    output.write(captioned)
                num_captioned += 1
                num_failed = len(listing.failed) + len(listing.uncertain) - num_unreadable
                progress.update(num_captioned + num_failed, num_failed)
    except KeyboardInterrupt:
        progress.clear()
        print("model: interrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    finally:
        progress.clear()
        for output in outputs:
            output.close()
    _report(listing, num_captioned, num_existing)
    return 1 if listing.failed or not listing.images else 0


def _generation(options: argparse.Namespace, default: GenerationOptions) -> GenerationOptions:
    """Return the decoding options. Raises ConfigError."""
    changes = flag_values(GenerationOptions, options)
    if "num_beams" in changes and "strategy" not in changes:
        changes["strategy"] = "beam" if changes["num_beams"] > 1 else "greedy"
    return dataclasses.replace(default, **changes)


def _load(folder: Path, options: argparse.Namespace) -> Captioner:
    policy = choose_policy(options.device, options.dtype)
    policy.apply()
    captioner = Captioner.from_checkpoint(load_checkpoint(folder), policy, copy_weights=False)
    print(f"device {policy.device}, {policy.reason}", file=sys.stderr)
    return captioner


def _leave_out_clashes(listing: Listing, outputs: Sequence[FilesBeside]) -> None:
    """Fail the images whose files cannot be written: two of one name, an image's name, or too long a name."""
    paths = {file.path for file in listing.images}
    for output in outputs:
        owners: dict[Path, list[ImageFile]] = collections.defaultdict(list)
        for file in listing.images:
            owners[output.target(file)].append(file)
        for target, files in owners.items():
            for file in files:
                if len(files) > 1:
                    other = next(one for one in files if one is not file)
                    listing.failed[file.path] = f"it and {other.text} would both write {target}; rename one, or use --output"
                elif target in paths:
                    listing.failed[file.path] = f"its captions would be written over the image {target}; rename that"
                elif len(os.fsencode(target.name)) > _MAX_NAME_BYTES:
                    listing.failed[file.path] = "the name of the file for its captions would be too long; rename it"
    listing.images = [file for file in listing.images if file.path not in listing.failed]


def _captioned(
    images: Sequence[ImageFile],
    captioner: Captioner,
    generation: GenerationOptions,
    options: argparse.Namespace,
    listing: Listing,
) -> Iterator[Captioned]:
    """Yield the images with their captions, in order; those that cannot be decoded go to the listing's failures."""
    limits = dataclasses.replace(LOCAL_IMAGE_LIMITS, accept_truncated=options.accept_truncated)
    has_words = needs_words(options)
    maps = options.maps if has_words else "none"
    # On a CPU the network uses every core: decoding beside it makes both slower (docs/decisions.md).
    on_cpu = captioner.runtime.device.type == "cpu"
    num_ahead = options.batch_size if on_cpu else 2 * options.batch_size
    decoded = _decoded(images, captioner, limits, num_ahead, listing, in_turns=on_cpu)
    while batch := list(itertools.islice(decoded, options.batch_size)):
        results = captioner.caption(
            [view for _, view in batch],
            generation,
            maps=maps,
            reliance=has_words,
            language=options.language,
        )
        for (file, view), result in zip(batch, results, strict=True):
            if view.is_truncated:
                listing.truncated.append(file.path)
            sure = [caption for caption in result.captions or (result.best,) if caption.finish_reason != "uncertain"]
            if not sure:
                listing.uncertain.append(file.path)
                continue
            captions = tuple(decorated(caption, options.prefix, options.suffix) for caption in sure)
            result = dataclasses.replace(result, captions=tuple(sure))
            yield Captioned(file, captions, functools.partial(_sheet, file, view, result, limits))


def _decoded(
    images: Sequence[ImageFile], captioner: Captioner, limits: ImageLimits, num_ahead: int, listing: Listing, *, in_turns: bool
) -> Iterator[tuple[ImageFile, ImageView]]:
    """Yield the images that can be decoded, in order; at most `num_ahead` are in memory.

    They are decoded in parallel; `in_turns`, only while the consumer waits for the next ones.
    """

    def decode(file: ImageFile) -> ImageView:
        return prepare(file.path.read_bytes(), captioner.image_config, limits)

    pool = ThreadPoolExecutor(_DECODING_THREADS, thread_name_prefix="decode")
    waiting: collections.deque[tuple[ImageFile, Future[ImageView]]] = collections.deque()
    rest = iter(images)
    try:
        while True:
            if not (in_turns and waiting):
                for file in itertools.islice(rest, num_ahead - len(waiting)):
                    waiting.append((file, pool.submit(decode, file)))
            if not waiting:
                return
            file, future = waiting.popleft()
            try:
                view = future.result()
            except ImageError as error:
                listing.failed[file.path] = str(error)
            except OSError as error:
                listing.failed[file.path] = read_error(error)
            else:
                yield file, view
    finally:
        pool.shutdown(cancel_futures=True)


def _sheet(file: ImageFile, view: ImageView, result: CaptionResult, limits: ImageLimits) -> bytes:
    """Return the contact sheet of an image's best caption as PNG."""
    from report import contact_sheet  # the one import of report in this package (docs/architecture.md)

    image = decode_image(file.path.read_bytes(), limits).upright()
    stream = io.BytesIO()
    contact_sheet(image, result.best, result.grid, view).save(stream, "PNG")
    return stream.getvalue()


def _report(listing: Listing, num_captioned: int, num_existing: int) -> None:
    """Print what was done with every file that was named, and list those that were not captioned."""
    lines = [f"{num_captioned} captioned"]
    if num_existing:
        lines[0] += f", {num_existing} had their captions already (--overwrite writes them again)"
    for files, title in (
        (listing.truncated, "truncated or damaged, captioned by what could be decoded"),
        (listing.uncertain, "without a caption of --min-confidence"),
        (listing.not_images, "not images"),
        (listing.failed, "not captioned"),
    ):
        if files:
            lines.append(f"{len(files)} {title}:")
            lines += [f"  {path}: {files[path]}" if isinstance(files, dict) else f"  {path}" for path in files]
    if any("truncated or damaged" in reason for reason in listing.failed.values()):
        lines.append("--accept-truncated captions what can be decoded of damaged images")
    if not listing.images and not listing.failed:
        lines = ["there are no images in what was named", *lines[1:]]
    print("\n".join(lines), file=sys.stderr)
