"""Sources as users have them: other tasks, older tokenizer files, broken files. Each is converted or refused by name."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import CheckpointError, load_checkpoint
from model.pretrained import convert_source
from model.pretrained.weights import read_weights
from tests.odd_sources import configure, expect_refused, write
from tests.test_convert import edit
from tests.test_foreign_tokenizers import KINDS
from tests.test_sources import save_authors_blip, write_vocab_txt

# --- tasks ---------------------------------------------------------------------------------------------------------------------

OTHER_TASKS = [
    ("blip", ["BlipForQuestionAnswering"], r"'BlipForQuestionAnswering' \(question answering\); supported are BlipForCond"),
    ("blip", ["BlipForImageTextRetrieval"], r"'BlipForImageTextRetrieval' \(image-text retrieval\)"),
    ("blip", ["BlipModel"], r"'BlipModel' \(features without a caption\)"),
    ("blip", ["TFBlipForQuestionAnswering"], r"'TFBlipForQuestionAnswering' \(question answering\)"),
    ("blip", ["BlipForConditionalGeneration", "BlipForQuestionAnswering"], r"'BlipForQuestionAnswering' \(question"),
    ("blip", ["Blip2ForConditionalGeneration"], "'Blip2ForConditionalGeneration'; supported are"),
    ("blip", ["VisionEncoderDecoderModel"], "model_type is 'blip'; it must be 'vision-encoder-decoder'"),
    ("blip", "BlipForQuestionAnswering", r"\(question answering\)"),
    ("blip", [7], r"architectures is \[7\]; it must be a list of names"),
    ("blip", {"a": 1}, "it must be a list of names"),
    ("vit_gpt2", ["ViTModel"], "'ViTModel'"),
    ("vit_gpt2", ["SpeechEncoderDecoderModel"], "'SpeechEncoderDecoderModel'"),
    ("vit_gpt2", ["LlavaForConditionalGeneration"], r"'LlavaForConditionalGeneration' \(a language model that reads an image"),
    ("vit_gpt2", ["Qwen2VLForConditionalGeneration"], r"\(a language model that reads an image as tokens\)"),
    ("vit_gpt2", ["PaliGemmaForConditionalGeneration"], r"\(a language model that reads an image as tokens\)"),
    ("vit_gpt2", ["GitForCausalLM"], r"'GitForCausalLM' \(a captioner whose text network has no cross-attention\)"),
    ("vit_gpt2", ["CLIPModel"], r"'CLIPModel' \(image-text retrieval\)"),
    ("vit_gpt2", ["SiglipModel"], r"'SiglipModel' \(image-text retrieval\)"),
    ("vit_gpt2", ["ViltForQuestionAnswering"], r"'ViltForQuestionAnswering' \(question answering\)"),
    ("vit_gpt2", ["ViltForImageAndTextRetrieval"], r"'ViltForImageAndTextRetrieval' \(image-text retrieval\)"),
    ("vit_gpt2", ["InstructBlipForConditionalGeneration"], r"\(a language model after a query transformer\)"),
    ("vit_gpt2", ["Pix2StructForConditionalGeneration"], r"\(an encoder of patches of variable size with T5's decoder\)"),
    ("vit_gpt2", ["MllamaForConditionalGeneration"], r"\(a language model with gated cross-attention\)"),
    ("vit_gpt2", ["GPT2LMHeadModel"], r"'GPT2LMHeadModel' \(text without images\)"),
    ("vit_gpt2", ["Florence2ForConditionalGeneration"], "model_type is 'vision-encoder-decoder'; it must be 'florence2'"),
    ("trocr", ["BlipForConditionalGeneration"], "model_type is 'vision-encoder-decoder'; it must be 'blip'"),
]


@pytest.mark.parametrize(("family", "architectures", "message"), OTHER_TASKS)
def test_a_source_of_another_task_is_refused_by_its_name(family, architectures, message, copy_of, tmp_path):
    folder = copy_of(family)
    configure(folder, architectures=architectures)
    with pytest.raises(CheckpointError, match=message):
        convert_source(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("architectures", [None, [], ["TFBlipForConditionalGeneration"], "BlipForConditionalGeneration"])
def test_a_captioner_without_architectures_or_of_another_framework_is_converted(architectures, copy_of, tmp_path):
    folder = copy_of("blip")
    configure(folder, architectures=architectures)
    convert_source(folder, tmp_path / "ours")
    assert load_checkpoint(tmp_path / "ours").config.source_family == "blip"


def with_tensors(path, **tensors):
    save_file(load_file(path) | tensors, path)


def test_a_network_that_answers_questions_is_refused_without_architectures_too(copy_of, tmp_path):
    folder = copy_of("blip")
    configure(folder, architectures=None)
    with_tensors(folder / "model.safetensors", **{"text_encoder.embeddings.word_embeddings.weight": torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match="it was trained for question answering"):
        convert_source(folder, tmp_path / "ours")
    save_authors_blip(tmp_path / "authors")
    path = tmp_path / "authors/model_caption.pth"
    torch.save({"model": torch.load(path)["model"] | {"text_encoder.x": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="it was trained for question answering"):
        convert_source(path, tmp_path / "ours")


# --- tokenizers ----------------------------------------------------------------------------------------------------------------

MAP, CONFIG, ADDED = "special_tokens_map.json", "tokenizer_config.json", "added_tokens.json"
SIZE = KINDS["gpt2"].get_vocab_size()  # the first id after the vocabulary
END = {"eos_token": "<|endoftext|>"}
EARLIER = KINDS["gpt2"].token_to_id("<|endoftext|>")

TOKEN_FILES = [  # files beside vocab.json and merges.txt, and the special token of the last id
    ({ADDED: {"[PAD]": SIZE}, MAP: END | {"pad_token": "[PAD]"}}, "[PAD]"),
    ({ADDED: {"[PAD]": SIZE}, MAP: END | {"pad_token": {"content": "[PAD]", "lstrip": False}}}, "[PAD]"),
    ({ADDED: {"[PAD]": SIZE}, CONFIG: END | {"pad_token": "[PAD]"}}, "[PAD]"),
    ({ADDED: {"[PAD]": SIZE}, MAP: END | {"additional_special_tokens": ["[PAD]"]}}, "[PAD]"),
    ({ADDED: {"[PAD]": SIZE}, CONFIG: END | {"extra_special_tokens": {"pad": "[PAD]"}}}, "[PAD]"),
    ({CONFIG: END | {"added_tokens_decoder": {str(SIZE): {"content": "[PAD]", "special": True}}}}, "[PAD]"),
    ({CONFIG: {"added_tokens_decoder": {str(EARLIER): {"content": "<|endoftext|>", "special": True},
                                        str(SIZE): {"content": "[PAD]", "special": True}}}}, "[PAD]"),
    ({MAP: END | {"pad_token": "[PAD]"}}, "[PAD]"),  # no file has its id: the next one, as in transformers
    ({MAP: END, CONFIG: END | {"pad_token": "é pad"}}, "é pad"),
]  # fmt: skip


def with_one_more_token(folder, files):
    """Make a ViT-GPT2 whose pad token is one row after the vocabulary, with an older tokenizer's files."""
    (folder / "tokenizer.json").unlink()
    KINDS["gpt2"].model.save(str(folder))
    tensors = load_file(folder / "model.safetensors")
    name = "decoder.transformer.wte.weight"
    save_file(tensors | {name: torch.cat([tensors[name], tensors[name][:1]])}, folder / "model.safetensors")
    edit(folder, "config.json", lambda c: c["decoder"].update(vocab_size=SIZE + 1))
    edit(folder, "generation_config.json", lambda c: c.update(pad_token_id=SIZE))
    for file, content in files.items():
        write(folder, file, content)


@pytest.mark.parametrize(("files", "token"), TOKEN_FILES)
def test_added_tokens_of_older_files_are_read(files, token, copy_of, tmp_path):
    folder = copy_of("vit_gpt2")
    with_one_more_token(folder, files)
    convert_source(folder, tmp_path / "ours")
    tokenizer = load_checkpoint(tmp_path / "ours").tokenizer
    assert tokenizer.id_of(token) == SIZE
    assert tokenizer.special_ids == {EARLIER, SIZE}
    assert tokenizer.encode("two dogs") == KINDS["gpt2"].encode("two dogs").ids


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({ADDED: {"[PAD]": SIZE + 5}}, rf"adds the token '\[PAD\]' as id {SIZE + 5}, but its vocabulary ends at {SIZE - 1}"),
        ({ADDED: {"<|endoftext|>": SIZE}}, f"'<|endoftext|>' as id {SIZE}, which its vocabulary has as {EARLIER}"),
        ({ADDED: {"[PAD]": "x"}}, r"added_tokens.json has '\[PAD\]' as 'x'; it must be a token and its id"),
        ({ADDED: {"[PAD]": True}}, "it must be a token and its id"),
        ({CONFIG: {"added_tokens_decoder": {"-1": {"content": "a"}}}}, "tokenizer_config.json has 'a' as '-1'"),
        ({CONFIG: {"added_tokens_decoder": {str(SIZE): {}}}}, "it must be a token and its id"),
        ({CONFIG: {"added_tokens_decoder": {str(SIZE): "A"}}, ADDED: {"B": SIZE}}, f"has 'B' as id {SIZE}, which is 'A' too"),
        ({ADDED: "{"}, r"added_tokens.json is not JSON \(line 1, column 2\)"),
        ({MAP: "[]"}, "special_tokens_map.json is not a JSON object"),
        ({"vocab.json": "{}"}, "pad_token_id|its tokenizer files cannot be read"),
        ({"vocab.json": "x"}, "its tokenizer files cannot be read; copy tokenizer.json"),
        ({"merges.txt": "a b c d"}, "its tokenizer files cannot be read"),
    ],
)  # fmt: skip
def test_broken_tokenizer_files_are_an_error_that_names_them(files, message, copy_of, tmp_path):
    folder = copy_of("vit_gpt2")
    with_one_more_token(folder, files)
    expect_refused(folder, tmp_path, message)


def test_tokens_added_to_a_vocab_txt_are_read(copy_of, tmp_path):
    folder = copy_of("blip")
    (folder / "tokenizer.json").unlink()
    inner = KINDS["bert"]
    write_vocab_txt(inner, folder / "vocab.txt", omitted=("[DEC]", "[ENC]"))
    ids = {name: inner.token_to_id(name) for name in ("[DEC]", "[ENC]")}
    write(folder, ADDED, ids)
    write(folder, MAP, {"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    convert_source(folder, tmp_path / "ours")
    tokenizer = load_checkpoint(tmp_path / "ours").tokenizer
    assert {name: tokenizer.id_of(name) for name in ids} == ids
    assert set(ids.values()) <= tokenizer.special_ids


BROKEN = [
    ("config.json", b"{", "config.json is not JSON"),
    ("config.json", b"\xff", "config.json cannot be read"),
    ("generation_config.json", b"[1]", "generation_config.json is not a JSON object"),
    ("generation_config.json", b"nonsense", "generation_config.json is not JSON"),
    ("preprocessor_config.json", b'{"size": 16}', "lacks 'image_mean'"),
    ("preprocessor_config.json", b'{"size": 16, "resample": "x"}', "'resample'; it must be an integer"),
    ("preprocessor_config.json", b'{"size": {"height": "a", "width": 1}}', "'size'; it must be a height and a width"),
    ("tokenizer.json", b"{}", "tokenizer.json cannot be read"),
    ("tokenizer.json", b"\xff", "its tokenizer files cannot be read"),
    ("model.safetensors", b"", "model.safetensors cannot be read"),
    ("model.safetensors", b"\xff" * 64, "model.safetensors cannot be read"),
    ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "lacks"),
]


@pytest.mark.parametrize(("file", "content", "message"), BROKEN)
def test_a_broken_file_is_an_error_in_our_own_words(file, content, message, copy_of, tmp_path):
    folder = copy_of("vit_gpt2")
    (folder / file).write_bytes(content)
    expect_refused(folder, tmp_path, message)


FIELDS = [
    (("decoder", "n_embd"), "x", "has 'x' as 'decoder.n_embd'; it must be an integer, at least 0"),
    (("decoder", "n_head"), None, "lacks 'decoder.n_head'; add it"),
    (("decoder", "n_layer"), -1, "'decoder.n_layer'; it must be an integer"),
    (("decoder", "n_positions"), 2**40, "'decoder.n_positions'; it must be an integer"),
    (("decoder", "layer_norm_epsilon"), "small", "'decoder.layer_norm_epsilon'; it must be a number"),
    (("decoder", "activation_function"), 3, "'decoder.activation_function'; it must be a text"),
    (("decoder", "tie_word_embeddings"), "no", "'decoder.tie_word_embeddings'; it must be true or false"),
    (("encoder", "hidden_size"), 0, "'encoder.hidden_size'; it must be an integer, at least 1"),
    (("encoder", "image_size"), [16], "'encoder.image_size'; it must be a height and a width"),
    (("encoder", "patch_size"), [4, 2], r"patch_size is \(4, 2\); timm's ViT has square patches"),
    (("encoder",), [], "as 'encoder'; it must be an object"),
    (("decoder",), "gpt2", "as 'decoder'; it must be an object"),
    (("decoder", "vocab_size"), 2_000_000_000, "its config requires|does not match"),
]


@pytest.mark.parametrize(("path", "value", "message"), FIELDS)
def test_a_field_of_another_type_is_an_error_that_names_it(path, value, message, copy_of, tmp_path):
    folder = copy_of("vit_gpt2")

    def change(config):
        (config[path[0]] if len(path) == 2 else config)[path[-1]] = value

    edit(folder, "config.json", change)
    expect_refused(folder, tmp_path, message)


def test_weights_in_half_precision_and_the_patch_size_as_a_pair_are_read(copy_of, tmp_path):
    folder = copy_of("vit_gpt2")
    edit(folder, "config.json", lambda c: c["encoder"].update(patch_size=[4, 4], image_size=[16, 16]))
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value.bfloat16() for name, value in tensors.items()}, folder / "model.safetensors")
    convert_source(folder, tmp_path / "ours")
    assert all(value.dtype == torch.float32 for value in read_weights(folder / "model.safetensors").values())


def test_the_retrieval_network_of_blip_lacks_a_decoder(copy_of, tmp_path):
    folder = copy_of("blip")
    configure(folder, architectures=None)
    tensors = load_file(folder / "model.safetensors")
    save_file({n: v for n, v in tensors.items() if not n.startswith("text_decoder.")}, folder / "model.safetensors")
    expect_refused(folder, tmp_path, "the source lacks 'text_decoder")
