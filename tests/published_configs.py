"""config.json, generation_config.json and preprocessor_config.json as published, field by field; only sizes and ids are tiny.

No file was downloaded. Where the fields come from:

- BLIP base: its config.json as transformers 4.26 prints it, in public notes on the checkpoint. Large differs in the sizes of the
  image encoder (transformers' convert_blip_original_pytorch_to_hf.py).
- ViT-GPT2: the config that the authors of nlpconnect/vit-gpt2-image-captioning print in their article on its training
  (ankur3107.github.io, "The Illustrated Image Captioning using transformers"), transformers 4.23.
- TrOCR: transformers' convert_trocr_unilm_to_pytorch.py (base: TrOCRConfig's own defaults; large-printed: other positions) and
  the dump of small and large-printed in a copy of that script for fine-tuned checkpoints, transformers 4.12 and 4.14.
- generation_config.json: what transformers 4.27 derived from such a config.json (`_from_model_config`).
- preprocessor_config.json: what ViTFeatureExtractor, DeiTFeatureExtractor and BlipImageProcessor of those versions wrote.
"""

from __future__ import annotations

import copy
from typing import Any

# What the base class of every config wrote into each part before transformers 4.27, generation settings included.
OLDER: dict[str, Any] = {
    "_name_or_path": "", "add_cross_attention": False, "architectures": None, "bad_words_ids": None,
    "begin_suppress_tokens": None, "bos_token_id": None, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None,
    "decoder_start_token_id": None, "diversity_penalty": 0.0, "do_sample": False, "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0, "eos_token_id": None, "exponential_decay_length_penalty": None,
    "finetuning_task": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False, "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 20, "min_length": 0,
    "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "output_attentions": False,
    "output_hidden_states": False, "output_scores": False, "pad_token_id": None, "prefix": None, "problem_type": None,
    "pruned_heads": {}, "remove_invalid_values": False, "repetition_penalty": 1.0, "return_dict": True,
    "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": None, "task_specific_params": None,
    "temperature": 1.0, "tf_legacy_loss": False, "tie_encoder_decoder": False, "tie_word_embeddings": True,
    "tokenizer_class": None, "top_k": 50, "top_p": 1.0, "torch_dtype": None, "torchscript": False, "typical_p": 1.0,
    "use_bfloat16": False,
}  # fmt: skip

_VIT = {
    "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": 32, "image_size": 16,
    "initializer_range": 0.02, "intermediate_size": 48, "layer_norm_eps": 1e-12, "num_attention_heads": 4, "num_channels": 3,
    "num_hidden_layers": 2, "patch_size": 4,
}  # fmt: skip
_GPT2 = {
    "_name_or_path": "gpt2", "activation_function": "gelu_new", "add_cross_attention": True,
    "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1, "initializer_range": 0.02, "is_decoder": True,
    "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 64, "n_embd": 32, "n_head": 4, "n_inner": None, "n_layer": 2,
    "n_positions": 64, "reorder_and_upcast_attn": False, "resid_pdrop": 0.1, "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "use_cache": True,
}  # fmt: skip
_TROCR = {
    "activation_dropout": 0.0, "activation_function": "gelu", "add_cross_attention": True, "attention_dropout": 0.0,
    "bos_token_id": 0, "classifier_dropout": 0.0, "cross_attention_hidden_size": 32, "d_model": 40,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "decoder_layerdrop": 0.0, "decoder_layers": 2,
    "decoder_start_token_id": 2, "dropout": 0.1, "eos_token_id": 2, "init_std": 0.02, "is_decoder": True,
    "layernorm_embedding": True, "max_position_embeddings": 64, "model_type": "trocr", "pad_token_id": 1,
    "scale_embedding": False, "use_cache": False, "use_learned_position_embeddings": True,
}  # fmt: skip
_LARGE_PRINTED = {
    "activation_function": "relu", "layernorm_embedding": False, "scale_embedding": True, "tie_word_embeddings": False,
    "use_learned_position_embeddings": False,
}  # fmt: skip
_SMALL = {"activation_function": "relu", "scale_embedding": True, "tie_word_embeddings": False}
_BLIP_TEXT = {
    "attention_probs_dropout_prob": 0.0, "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
    "hidden_size": 32, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 64, "is_decoder": True,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 64, "model_type": "blip_text_model", "num_attention_heads": 4,
    "num_hidden_layers": 2, "projection_dim": 768, "transformers_version": "4.26.0.dev0", "use_cache": True,
}  # fmt: skip
_BLIP_VISION = {
    "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "gelu", "image_size": 16, "initializer_factor": 1.0,
    "initializer_range": 0.02, "layer_norm_eps": 1e-05, "model_type": "blip_vision_model", "num_attention_heads": 4,
    "num_channels": 3, "num_hidden_layers": 2, "patch_size": 4, "projection_dim": 512, "transformers_version": "4.26.0.dev0",
}  # fmt: skip
_HALF = [0.5, 0.5, 0.5]
_FEATURES = {"do_normalize": True, "do_resize": True, "image_mean": _HALF, "image_std": _HALF, "resample": 2, "size": 16}
_BLIP_IMAGES = {
    "do_normalize": True, "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "BlipImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711],
    "processor_class": "BlipProcessor", "size": {"height": 16, "width": 16},
}  # fmt: skip


def published(name: str, vocab_size: int, ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Return the JSON files of a checkpoint by file name; `ids` are those of the tokens start, end and pad."""
    return copy.deepcopy(_blip(name, vocab_size, ids) if name.startswith("blip") else _encoder_decoder(name, vocab_size, ids))


def _blip(name: str, vocab_size: int, ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    hidden_size = 40 if name == "blip-image-captioning-large" else 32  # large: wider than the decoder
    text = OLDER | _BLIP_TEXT | {"bos_token_id": ids["start"], "sep_token_id": ids["end"], "pad_token_id": ids["pad"]}
    config = {
        "_commit_hash": None, "architectures": ["BlipForConditionalGeneration"], "image_text_hidden_size": 256,
        "initializer_factor": 1.0, "logit_scale_init_value": 2.6592, "model_type": "blip", "projection_dim": 512,
        "text_config": text | {"vocab_size": vocab_size}, "torch_dtype": "float32", "transformers_version": None,
        "vision_config": OLDER | _BLIP_VISION | {"hidden_size": hidden_size, "intermediate_size": 2 * hidden_size},
    }  # fmt: skip
    return {"config.json": config, "preprocessor_config.json": _BLIP_IMAGES}


def _encoder_decoder(name: str, vocab_size: int, ids: dict[str, int]) -> dict[str, dict[str, Any]]:
    encoder = OLDER | _VIT | {"model_type": "vit", "qkv_bias": False}
    decoder = OLDER | _TROCR
    images = _FEATURES | {"feature_extractor_type": "ViTFeatureExtractor"}
    top: dict[str, Any] = {}
    derived = {"bos_token_id": 0, "decoder_start_token_id": 2, "use_cache": False}
    if name == "vit-gpt2-image-captioning":
        encoder |= {"_name_or_path": "google/vit-base-patch16-224-in21k", "architectures": ["ViTModel"], "encoder_stride": 16}
        encoder |= {"qkv_bias": True}
        decoder = OLDER | _GPT2 | {"bos_token_id": ids["start"], "eos_token_id": ids["end"]}
        top = {"decoder_start_token_id": ids["start"], "eos_token_id": ids["end"], "pad_token_id": ids["pad"]}
        derived = {"bos_token_id": ids["start"], "decoder_start_token_id": ids["start"]}
    elif name == "trocr-large-printed":
        decoder |= _LARGE_PRINTED
    elif name.startswith("trocr-small"):
        encoder |= {"model_type": "deit", "qkv_bias": True}
        decoder |= _SMALL
        top = {"eos_token_id": 2}
        images = _FEATURES | {"feature_extractor_type": "DeiTFeatureExtractor", "do_center_crop": False, "crop_size": 16}
    config = {
        "architectures": ["VisionEncoderDecoderModel"], "decoder": decoder | {"vocab_size": vocab_size}, "encoder": encoder,
        "is_encoder_decoder": True, "model_type": "vision-encoder-decoder", "tie_word_embeddings": False,
        "torch_dtype": "float32", "transformers_version": None,
    }  # fmt: skip
    generation = {"_from_model_config": True, "eos_token_id": ids["end"], "pad_token_id": ids["pad"]}
    generation |= derived | {"transformers_version": "4.27.0.dev0"}
    return {"config.json": config | top, "generation_config.json": generation, "preprocessor_config.json": images}
