"""The generation settings of a source: which ones `generate` uses, our default options from them, and what is not taken over.

`generate` of transformers 5.23 reads them in one place: an encoder-decoder in generation_config.json, without that file in
config.json and there in `decoder`; BLIP's captioner in `text_config` of config.json, where the older settings are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from model.errors import ConfigError
from model.fields import fields_of, from_json, to_json
from model.options import GenerationOptions

# The settings of transformers 5.23 that config files of models had before there was a generation_config.json, with defaults.
OLDER_DEFAULTS: dict[str, Any] = {
    "max_length": 20, "min_length": 0, "do_sample": False, "use_cache": True, "early_stopping": False, "num_beams": 1,
    "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1,
    "output_scores": False, "return_dict_in_generate": False, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "remove_invalid_values": False, "exponential_decay_length_penalty": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "encoder_repetition_penalty": 1.0,
    "num_assistant_tokens": 20, "num_assistant_tokens_schedule": "constant", "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10, "target_lookbehind": 10, "num_beam_groups": 1, "diversity_penalty": 0.0,
}  # fmt: skip
# Its other settings; their default is None.
NEWER_SETTINGS = (
    "max_new_tokens", "min_new_tokens", "max_time", "stop_strings", "use_mtp", "cache_implementation", "cache_config",
    "max_cache_len", "min_p", "top_h", "renormalize_logits", "sequence_bias", "token_healing", "guidance_scale",
    "watermarking_config", "output_attentions", "output_hidden_states", "output_logits", "pad_token_id", "bos_token_id",
    "eos_token_id", "decoder_start_token_id", "is_assistant", "prompt_lookup_num_tokens", "max_matching_ngram_size",
    "assistant_early_exit", "assistant_ensemble_weight", "speculation_type", "compile_config", "disable_compile", "low_memory",
    "penalty_alpha", "dola_layers", "constraints", "force_words_ids", "prefill_chunk_size", "continuous_batching_config",
)  # fmt: skip
_DEFAULTS: dict[str, Any] = OLDER_DEFAULTS | dict.fromkeys(NEWER_SETTINGS)
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
_FORCED = ("forced_bos_token_id", "forced_eos_token_id")  # ids of the decoder, too; BLIP's `generate` does not read them
_NO_SETTINGS = ("_from_model_config", "_commit_hash", "transformers_version")
_SAME_CAPTION = {  # they change the computation or what else is returned
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile", "low_memory",
    "prefill_chunk_size", "continuous_batching_config", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_dict_in_generate",
}  # fmt: skip
_SHARED = (  # options with transformers' name and meaning
    "early_stopping", "length_penalty", "no_repeat_ngram_size", "repetition_penalty", "temperature", "top_k", "top_p", "min_p",
)  # fmt: skip
_MAX_WORDS = 400  # so that only the source's token limits apply
_DEFAULT_NEW_TOKENS = 20  # of `generate`, where no setting limits them
_LONGEST_TEXT = 100  # characters of a value that is shown


@dataclass(frozen=True, slots=True)
class NotAdopted:
    """A generation setting of a source that the converted checkpoint does not have, and why."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{_short(self.name)} {_short(repr(self.value))}: {self.reason}"

    @property
    def row(self) -> str:
        """The cells of a Markdown table."""
        value = _short(repr(self.value)).replace("`", "'")
        cells = (_short(self.name), f"`{value}`", self.reason)
        return " | ".join(cell.replace("|", "\\|") for cell in cells)


def used_settings(config: dict[str, Any], file: dict[str, Any] | None) -> tuple[dict[str, Any], tuple[NotAdopted, ...]]:
    """Return the settings that `generate` uses, and those of config.json and generation_config.json that it does not read.

    `file` is generation_config.json, None if there is none.
    """
    top = _known(config)
    parts = {name: _known(config.get(name)) for name in ("decoder", "generator", "text_config", "encoder", "vision_config")}
    unread: dict[str, dict[str, Any]]
    if config.get("model_type") == "blip":
        text = parts.pop("text_config")
        used = {name: value for name, value in text.items() if name not in OLDER_DEFAULTS}
        unread = {"text_config": text, "config.json": top, "generation_config.json": _set(file or {}), **parts}
    elif file is not None:
        used = _set(file)
        unread = {"config.json": top, **parts}
    else:
        decoder = next((name for name in ("decoder", "generator", "text_config") if config.get(name)), "decoder")
        used = parts[decoder] | top
        unread = parts
    return used, tuple(_unread(used, unread)) + tuple(_of_tasks(config))


def adopted_options(settings: dict[str, Any]) -> tuple[GenerationOptions, tuple[NotAdopted, ...]]:
    """Return the default options that the settings stand for, and the settings that are left out or limited."""
    adoption = _Adoption(settings)
    adoption.adopt_beams()
    adoption.adopt_lengths()
    for name in _SHARED:
        if name in settings and not _is_default(name, settings[name]):
            adoption.adopt(name, name)
    if settings.get("do_sample") is True and "top_k" not in settings:
        adoption.options["top_k"] = OLDER_DEFAULTS["top_k"]
    adoption.list_others()
    return from_json(GenerationOptions, adoption.options), tuple(adoption.left_out)


class _Adoption:
    """Options that are taken over one by one, each within its range."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.left_out: list[NotAdopted] = []
        self._handled = {*_SHARED, *_IDS, *_FORCED, *_NO_SETTINGS}
        plain = GenerationOptions(strategy="greedy", num_beams=2, max_words=_MAX_WORDS, max_new_tokens=_DEFAULT_NEW_TOKENS)
        self.options = to_json(plain)

    def adopt(self, setting: str, option: str, value: Any = None) -> bool:
        """Take an option over, by default with the setting's value; list the setting if the option cannot have that value."""
        self._handled.add(setting)
        changed = self.options | {option: self.settings[setting] if value is None else value}
        try:
            from_json(GenerationOptions, changed)
        except (ConfigError, OverflowError) as error:  # OverflowError: an integer beyond every float
            self._list(setting, f"left out: {str(error).partition('; ')[2] or 'it is too large'}")
            return False
        self.options = changed
        return True

    def adopt_beams(self) -> None:
        """More than one beam is beam search."""
        self._handled.add("num_beams")
        value = self.settings.get("num_beams", 1)
        if _is_integer(value) and value > 1:
            self._adopt_limited("num_beams", "num_beams", value)
            self.options["strategy"] = "beam"
        elif not _is_integer(value) or value < 1:
            self._list("num_beams", "left out: it must be an integer, 1 or above")

    def adopt_lengths(self) -> None:
        """Limits of the whole sequence count its start token; limits of new tokens take precedence."""
        self._adopt_length("max_new_tokens", "max_length", minimum=1)
        self._adopt_length("min_new_tokens", "min_length", minimum=0)

    def list_others(self) -> None:
        """List every other setting that is not the default."""
        for name, value in self.settings.items():
            if name in self._handled or _is_default(name, value):
                continue
            if name == "do_sample":
                reason = "captions are not sampled by default; strategy 'sample' does"
            elif name == "num_return_sequences":
                reason = "one caption by default; num_return_sequences of a request returns more"
            elif name in _SAME_CAPTION:
                reason = "it does not change captions"
            else:
                reason = "it has no equivalent here" if name in _DEFAULTS else "it is not a setting of `generate`"
            self._list(name, reason)

    def _adopt_length(self, name: str, total: str, *, minimum: int) -> None:
        self._handled |= {name, total}
        is_taken = False
        if name in self.settings:
            value = self.settings[name]
            is_taken = _is_integer(value) and value >= minimum
            if is_taken:
                self._adopt_limited(name, name, value)
            else:
                self._list(name, f"left out: it must be an integer, {minimum} or above")
        if total not in self.settings:
            return
        value = self.settings[total]
        if is_taken:
            if not _is_default(total, value):
                self._list(total, f"{name} takes precedence, as in `generate`")
        elif _is_integer(value) and value >= 2 * minimum:
            self._adopt_limited(total, name, max(minimum, value - 1))
        else:
            self._list(total, f"left out: it must be an integer, {2 * minimum} or above")

    def _adopt_limited(self, setting: str, option: str, value: int) -> None:
        """Take an integer over, or the largest one that is possible."""
        limit = next(int(info.maximum or 0) for info in fields_of(GenerationOptions) if info.name == option)
        if option == "min_new_tokens":
            limit = min(limit, self.options["max_new_tokens"])
        if value > limit:
            self._list(setting, f"{option} is {limit}, the largest that is possible here")
        self.adopt(setting, option, min(value, limit))

    def _list(self, setting: str, reason: str) -> None:
        self.left_out.append(NotAdopted(setting, self.settings[setting], reason))


def _known(part: Any) -> dict[str, Any]:
    """Return the generation settings of a part of config.json, which has many other fields."""
    return {name: value for name, value in _set(part).items() if name in _DEFAULTS} if isinstance(part, dict) else {}


def _set(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if value is not None}


def _unread(used: dict[str, Any], unread: dict[str, dict[str, Any]]) -> Iterator[NotAdopted]:
    for part, settings in unread.items():
        for name, value in settings.items():
            if name not in (*_IDS, *_NO_SETTINGS) and not _is_default(name, value) and used.get(name) != value:
                yield NotAdopted(f"{part} {name}", value, "`generate` does not read it there")


def _of_tasks(config: dict[str, Any]) -> Iterator[NotAdopted]:
    for part in ("", "decoder", "text_config"):
        values = config.get(part) if part else config
        if isinstance(values, dict) and values.get("task_specific_params"):
            name, value = f"{part} task_specific_params".strip(), values["task_specific_params"]
            yield NotAdopted(name, value, "`generate` does not read it")


def _is_default(name: str, value: Any) -> bool:
    default = _DEFAULTS.get(name)
    if default is None:
        return value is None or value is False or value in ([], {}, "")
    return bool(value == default) and (isinstance(value, bool) == isinstance(default, bool))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
