"""The paths of the service: captions, explanations, health and models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from model import Captioner, ImageCaptions, ImageError, ImageLimits, ImageView, TextError, prepare
from service.answers import answer_json, model_json
from service.errors import PROBLEMS, Problem, option_problem
from service.intake import Received, receive
from service.negotiation import negotiate
from service.openapi import LIVE, MODELS, PROBLEM_PAGE, READY, captions_operation, explanations_operation
from service.schemas import MOST_CAPTION_WORDS, MOST_MAP_VALUES, CaptionOptions, ExplanationOptions, MapOptions, parse_options

_JSON, _TEXT = "application/json", "text/plain"
_DECODERS = 2  # threads that decode pictures: libjpeg and zlib release the interpreter's lock


@dataclass(frozen=True, slots=True)
class Engine:
    """What requests share: the captioners by name (the first is the default), the limits, the two pools."""

    captioners: dict[str, Captioner]
    limits: ImageLimits
    most_bytes: int
    model_thread: ThreadPoolExecutor  # one thread owns the network: a second request waits for the first
    decoders: ThreadPoolExecutor

    @classmethod
    def start(cls, captioners: dict[str, Captioner], limits: ImageLimits, most_bytes: int) -> Engine:
        return cls(
            captioners,
            limits,
            most_bytes,
            ThreadPoolExecutor(1, thread_name_prefix="model"),
            ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode"),
        )

    def stop(self) -> None:
        """Let what runs finish and end both pools."""
        self.decoders.shutdown()
        self.model_thread.shutdown()

    def captioner(self, name: str | None) -> tuple[str, Captioner]:
        chosen = name if name is not None else next(iter(self.captioners))
        if chosen not in self.captioners:
            raise Problem("unknown_model", f"model is {chosen!r}; the models are {', '.join(self.captioners)}")
        return chosen, self.captioners[chosen]


def build_router(engine: Engine) -> APIRouter:
    """Return the routes over one engine."""
    router = APIRouter()

    @router.post("/v1/captions", **captions_operation())
    async def captions(request: Request) -> Response:
        kind = negotiate(", ".join(request.headers.getlist("accept")), (_JSON, _TEXT))
        received = await receive(request, engine.most_bytes)
        options = parse_options(CaptionOptions, received.options, json=received.json)
        name, captioner = engine.captioner(options.model)
        language = _language(options, captioner, received.json)
        generation = options.generation(captioner.config.generation, json=received.json)

        def call(view: ImageView) -> ImageCaptions:
            maps, reliance = kind == _JSON and options.maps != "none", kind == _JSON and options.reliance
            return captioner.caption([view], generation, maps=maps, reliance=reliance)[0]

        view, answer, timing = await _answer(engine, captioner, received, call, "prompt")
        if kind == _TEXT:
            return PlainTextResponse(answer.captions[0].text + "\n", headers=_timing_header(timing))
        return await _respond(engine, "caption", name, language, view, answer, options, timing, json=received.json)

    @router.post("/v1/explanations", **explanations_operation())
    async def explanations(request: Request) -> Response:
        negotiate(", ".join(request.headers.getlist("accept")), (_JSON,))
        received = await receive(request, engine.most_bytes)
        options = parse_options(ExplanationOptions, received.options, json=received.json)
        name, captioner = engine.captioner(options.model)
        language = _language(options, captioner, received.json)
        if (words := captioner.count_words(options.caption)) > MOST_CAPTION_WORDS:
            detail = f"caption has {words} words; at most {MOST_CAPTION_WORDS} can be explained: send a shorter one"
            raise option_problem("caption", detail, json=received.json)

        def call(view: ImageView) -> ImageCaptions:
            maps = options.maps != "none"
            return captioner.explain([view], [[options.caption]], maps=maps, reliance=options.reliance)[0]

        view, answer, timing = await _answer(engine, captioner, received, call, "caption")
        return await _respond(engine, "explanation", name, language, view, answer, options, timing, json=received.json)

    @router.head("/livez", include_in_schema=False)
    @router.get("/livez", **LIVE)
    async def livez() -> Response:
        return JSONResponse({"status": "alive"})

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", **READY)
    async def readyz() -> Response:
        return JSONResponse({"status": "ready"})

    @router.head("/v1/models", include_in_schema=False)
    @router.get("/v1/models", **MODELS)
    async def models() -> Response:
        data = [model_json(name, captioner) for name, captioner in engine.captioners.items()]
        return JSONResponse({"object": "list", "data": data})

    @router.get("/problems/{code}", **PROBLEM_PAGE)
    async def problem_page(code: str) -> Response:
        if code not in PROBLEMS:
            raise Problem("unknown_path", f"there is no problem {code!r}; there are {', '.join(PROBLEMS)}")
        kind = PROBLEMS[code]
        return PlainTextResponse(f"{kind.status} {code}: {kind.title}.\n{kind.explanation}\n")

    return router


async def _answer(
    engine: Engine, captioner: Captioner, received: Received, call: Callable[[ImageView], ImageCaptions], text_option: str
) -> tuple[ImageView, ImageCaptions, dict[str, float]]:
    """Decode the picture in a decoder's thread, then have `call` done by the model thread.

    `text_option` is the option to blame where a text does not fit the checkpoint.
    """
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    try:
        view = await loop.run_in_executor(engine.decoders, prepare, received.image, captioner.image_config, engine.limits)
    except ImageError as error:
        raise Problem(error.code, str(error)) from error
    decoded = time.perf_counter()
    waited = 0.0

    def work() -> ImageCaptions:
        nonlocal waited
        waited = time.perf_counter() - decoded
        return call(view)

    try:
        answer = await loop.run_in_executor(engine.model_thread, work)
    except TextError as error:
        raise option_problem(text_option, str(error), json=received.json) from error
    timing = {
        "decode_image_ms": 1e3 * (decoded - started),
        "queue_ms": 1e3 * waited,
        "encode_ms": answer.timing.encode,
        "decode_ms": answer.timing.decode,
        "maps_ms": answer.timing.maps,
    }
    return view, answer, timing


async def _respond(
    engine: Engine,
    kind: str,
    model: str,
    language: str,
    view: ImageView,
    answer: ImageCaptions,
    options: MapOptions,
    timing: dict[str, float],
    *,
    json: bool,
) -> Response:
    """Write the answer's JSON in a thread of its own: large maps must not keep the loop from other requests."""
    target = options.target_grid()
    words = sum(len(caption.words) for caption in answer.captions)
    if target is not None and options.maps != "none" and words * target.cells > MOST_MAP_VALUES:
        detail = (
            f"map_size is {options.map_size!r}: {words} words of {target.cells} cells are more than {MOST_MAP_VALUES} values; "
            "ask for smaller maps or fewer captions"
        )
        raise option_problem("map_size", detail, json=json)

    def write() -> Response:
        body = answer_json(kind, model, language, view, answer, target, timing)
        return JSONResponse(body, headers=_timing_header(timing))

    return await asyncio.get_running_loop().run_in_executor(engine.decoders, write)


def _language(options: MapOptions, captioner: Captioner, json: bool) -> str:
    known = {tag.lower(): tag for tag in captioner.config.languages}  # BCP 47 ignores case
    wanted = (options.language or captioner.config.languages[0]).lower()
    if wanted not in known:
        detail = f"language is {options.language!r}; this checkpoint speaks {', '.join(known.values())}"
        raise option_problem("language", detail, json=json)
    return known[wanted]


def _timing_header(timing: dict[str, float]) -> dict[str, str]:
    return {"server-timing": ", ".join(f"{name.removesuffix('_ms')};dur={value:.1f}" for name, value in timing.items())}
