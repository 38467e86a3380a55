"""Captions as server-sent events: words with their maps as soon as each is final."""

from __future__ import annotations

from model import CaptionResult, ImageView, PatchGrid, Word
from service.errors import ServiceError, option_error
from service.http.dialects.native.json_body import grid_json, image_json, sortable_id, word_json
from service.http.dialects.native.outputs import EVENTS, body_json, check_map_values, problem_of
from service.http.dialects.native.parse import ParsedRequest
from service.http.dialects.native.schemas import MAX_MAP_VALUES
from service.http.dialects.streaming import event
from service.runtime import Engine


class NativeEvents:
    """Writes `start`, a `word` as soon as each is final, then `caption`, or `error` (EventWriter)."""

    media_type = EVENTS
    idle = b": still working\n\n"

    def __init__(self, engine: Engine, parsed: ParsedRequest, view: ImageView) -> None:
        self._engine = engine
        self._parsed = parsed
        self._view = view
        self._target = parsed.options.target()
        self._grid = parsed.captioner.grid
        self._id = f"cap_{sortable_id()}"
        self._num_words = 0

    def start(self) -> bytes:
        """Return the event with what is known before the first word."""
        view = self._view
        return event(
            "start",
            {"id": self._id, "model": self._parsed.model, "image": image_json(view), "grid": grid_json(view, self._grid)},
        )

    def word(self, word: Word) -> bytes:
        """Return the event of a word. Raises ServiceError (422) if the maps so far are too large."""
        target, index = self._target, self._num_words
        if isinstance(target, PatchGrid) and word.map is not None and (index + 1) * target.num_patches > MAX_MAP_VALUES:
            detail = f"map_size is {self._parsed.options.map_size!r}: its maps are more than {MAX_MAP_VALUES} values"
            raise option_error("map_size", detail)
        self._num_words += 1
        body = {"index": index, "before": word.before, **word_json(word, self._view, self._grid, target)}
        return event("word", body)

    def end(self, result: CaptionResult) -> bytes:
        """Return the event with the complete body. Raises ServiceError (422) if its maps are too large."""
        check_map_values(self._parsed, result)
        return event("caption", body_json(self._parsed, self._view, result, self._id))

    def error(self, error: ServiceError) -> bytes:
        """Return the event of a problem."""
        return event("error", problem_of(self._engine, self._parsed, error))
