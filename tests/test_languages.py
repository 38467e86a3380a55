"""Checkpoints of several languages: decoding, scoring pass and training read the language's token after the start token.

Shapes: T tokens, P patches.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from fastapi.testclient import TestClient

from corpus import open_dataset
from evaluation import caption_images, held_out_scenes, png_bytes
from model import (
    MAP_METHODS,
    Captioner,
    CaptionNetwork,
    CaptionRequest,
    Checkpoint,
    ConfigError,
    DevicePolicy,
    GenerationOptions,
    PrefixIds,
    Runtime,
    TextError,
    Word,
    load_checkpoint,
    prefix_ids,
    save_checkpoint,
    scoring_pass,
)
from model.generation import Generation
from service import Settings, create_app
from tests.helpers import finish
from tests.networks import redraw, tiny_config
from training import TrainingData

EN, DE = 300, 301  # token ids of the languages
TEXT = "a brown dog runs on the grass"


@pytest.fixture(scope="module")
def network(tokenizer) -> CaptionNetwork:
    """A network in float64 with the languages en and de."""
    config = replace(tiny_config(tokenizer.size), languages=("en", "de"), language_token_ids=(EN, DE))
    torch.manual_seed(0)
    built = CaptionNetwork(config).double().eval()
    redraw(built, 9)
    with torch.no_grad():  # captions of random weights hardly ever end
        built.decoder.token_embedding.weight[config.decoder.eos_token_id] *= 2.3
    return built.requires_grad_(False)


@pytest.fixture(scope="module")
def captioner(network, tokenizer) -> Captioner:
    return Captioner(network, tokenizer)


def forced_log_probs(
    network: Runtime, pixels: torch.Tensor, prefix: list[int], tokens: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of tokens after a prefix, and their mean attention on the patches: (T,), (T, P)."""
    features = network.encode(pixels[None])
    inputs = torch.tensor([[*prefix, *tokens[:-1]]])
    logits, weights, _ = network.decode(inputs, network.start(features), weights=True)
    log_probs = logits[0].log_softmax(-1)
    first = len(prefix) - 1
    values = torch.stack([log_probs[first + index, token] for index, token in enumerate(tokens)])
    heads = torch.cat([layer[0] for layer in weights])  # (L*H, T, S)
    patches = slice(features.num_prefix_tokens, features.num_prefix_tokens + features.grid.num_patches)
    return values, heads.mean(0)[first:, patches]


@pytest.mark.parametrize(("language", "token"), [("", EN), ("en", EN), ("de", DE), ("DE", DE)])
def test_the_language_token_comes_after_the_start_token_and_before_the_prompt(network, tokenizer, language, token):
    start = network.config.decoder.bos_token_id
    assert prefix_ids(network.config, tokenizer, language, "a dog") == PrefixIds((start, token), tuple(tokenizer.encode("a dog")))
    assert prefix_ids(network.config, tokenizer, language).all == (start, token)


def test_a_checkpoint_of_one_language_has_no_language_token(tiny_network, tokenizer):
    assert prefix_ids(tiny_network.config, tokenizer, "en").all == (tiny_network.config.decoder.bos_token_id,)


@pytest.mark.parametrize(("language", "token"), [("en", EN), ("de", DE)])
@pytest.mark.parametrize("prompt", ["", "a dog"])
def test_greedy_search_in_a_language_continues_its_prefix(captioner, network, tokenizer, pixels, language, token, prompt):
    options = GenerationOptions(strategy="greedy", max_new_tokens=8, prompt=prompt)
    ids = [network.config.decoder.bos_token_id, token, *tokenizer.encode(prompt)]
    for image in pixels:
        tokens = list(ids)
        features = network.encode(image[None])
        for _ in range(8):
            logits, _, _ = network.decode(torch.tensor([tokens]), network.start(features))
            scores = logits[0, -1]
            scores[list(network.config.decoder.suppress_tokens)] = float("-inf")
            tokens.append(int(scores.argmax()))
            if tokens[-1] == network.config.decoder.eos_token_id:
                break
        expected = [index for index in tokens[2:] if index != network.config.decoder.eos_token_id]
        assert list(decoded_tokens(network, tokenizer, image, options, language)) == expected


def decoded_tokens(network, tokenizer, image, options, language):
    """Return the tokens of the best caption of an image in a language, prompt included."""
    generation = Generation(network, tokenizer)
    prefix = prefix_ids(network.config, tokenizer, language, options.prompt)
    generation.add(network.start(network.encode(image[None])), [0], [options], [prefix])
    return finish(generation)[0][0].tokens


def test_captions_of_the_two_languages_differ(captioner, double_views):
    english = [result.captions[0].text for result in captioner.caption(double_views)]
    german = [result.captions[0].text for result in captioner.caption(double_views, language="de")]
    assert english == [result.captions[0].text for result in captioner.caption(double_views, language="en")]
    assert all(one != other for one, other in zip(english, german, strict=True))


@pytest.fixture(scope="module")
def double_views(views):
    """The views of three images in float64."""
    return [replace(view, pixels=view.pixels.double()) for view in views]


@pytest.mark.parametrize(("language", "token"), [("en", EN), ("de", DE)])
def test_the_scoring_pass_equals_teacher_forcing_with_both_prefix_ids(network, tokenizer, pixels, language, token):
    start, end = network.config.decoder.bos_token_id, network.config.decoder.eos_token_id
    captions = [(*tokenizer.encode(TEXT), end), tuple(tokenizer.encode("two dogs")), (end,)]
    prefix = prefix_ids(network.config, tokenizer, language).special
    assert prefix == (start, token)
    scored = scoring_pass(
        network,
        network.encode(pixels),
        (0, 1, 2),
        captions,
        method=MAP_METHODS["attention"],
        reliance=True,
        prefixes=[prefix] * 3,
    )
    blank = network.unconditional()
    for image, tokens, caption in zip(pixels, captions, scored, strict=True):
        values, rows = forced_log_probs(network, image, [start, token], list(tokens))
        torch.testing.assert_close(torch.tensor(caption.log_probs, dtype=torch.float64), values, atol=1e-11, rtol=0)
        torch.testing.assert_close(caption.token_maps, rows, atol=1e-11, rtol=0)
        logits, _, _ = network.decode(torch.tensor([[start, token, *tokens[:-1]]]), network.start(blank))
        expected = logits[0, 1:].log_softmax(-1)[range(len(tokens)), list(tokens)]
        unconditional = torch.tensor(caption.unconditional_log_probs, dtype=torch.float64)
        torch.testing.assert_close(unconditional, expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize(("language", "token"), [("", EN), ("de", DE)])
def test_explanations_have_the_figures_of_their_language(captioner, network, tokenizer, double_views, language, token):
    start, end = network.config.decoder.bos_token_id, network.config.decoder.eos_token_id
    ids = tokenizer.encode(TEXT)
    (result,) = captioner.explain(double_views[:1], [[TEXT]], language=language)
    values, rows = forced_log_probs(network, double_views[0].pixels, [start, token], [*ids, end])
    assert result.captions[0].log_probability == pytest.approx(float(values.sum()), abs=1e-10)
    for word, span in zip(result.captions[0].words, tokenizer.words(ids), strict=True):
        assert word.log_probability == pytest.approx(float(values[list(span.tokens)].sum()), abs=1e-10)
        mean = rows[list(span.tokens)].mean(0)
        torch.testing.assert_close(word.map.values, mean / mean.sum(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_caption_has_the_figures_of_its_own_explanation(captioner, double_views, language):
    options = GenerationOptions(prompt="two dogs", num_beams=2)
    for view in double_views:
        (made,) = captioner.caption([view], options, language=language)
        *words, streamed = captioner.stream(view, options, language=language)
        (explained,) = captioner.explain([view], [["two dogs play"]], language=language)
        assert made.captions[0].text == streamed.captions[0].text
        assert [word.text for word in words if isinstance(word, Word)] == [word.text for word in made.captions[0].words]
        for word, other in list(zip(made.captions[0].words, explained.captions[0].words, strict=False))[:1]:
            assert word.log_probability == pytest.approx(other.log_probability, abs=1e-10)
            assert word.image_reliance == pytest.approx(other.image_reliance, abs=1e-10)


def test_a_batch_mixes_languages(captioner, network, double_views):
    languages = ["de", "en", ""]
    batch = captioner.batch()
    options = GenerationOptions(num_beams=2, max_new_tokens=10)
    batch.add(
        [0, 1, 2],
        [CaptionRequest(view=view, options=options, language=tag) for view, tag in zip(double_views, languages, strict=True)],
    )
    batch.run()
    for view, tag, result in zip(double_views, languages, batch.pop_results([0, 1, 2]), strict=True):
        (alone,) = captioner.caption([view], options, language=tag)
        assert [caption.text for caption in result.captions] == [caption.text for caption in alone.captions]
        assert result.captions[0].log_probability == pytest.approx(alone.captions[0].log_probability, abs=1e-10)


def test_the_language_token_takes_one_of_the_positions(captioner, network, tokenizer, double_views):
    free_positions = network.config.decoder.max_positions - 2  # start and language token
    fitting, ids = "dog", tokenizer.encode("dog")
    while len(tokenizer.encode(fitting + " dog")) < free_positions:
        fitting += " dog"
    assert len(ids) <= len(tokenizer.encode(fitting)) < free_positions
    (result,) = captioner.explain(double_views[:1], [[fitting]], language="de")
    assert result.captions[0].text == fitting
    with pytest.raises(TextError, match="positions"):
        captioner.explain(double_views[:1], [[fitting + " dog" * free_positions]], language="de")
    with pytest.raises(TextError, match=f"room for {free_positions} "):
        captioner.caption(double_views[:1], GenerationOptions(prompt="dog " * free_positions), language="de")


def test_an_unknown_language_is_refused_and_nothing_is_added(captioner, double_views):
    with pytest.raises(ConfigError, match="language is 'fr'; this checkpoint has en, de"):
        captioner.caption(double_views, language="fr")
    assert captioner.language("De") == "de"
    assert captioner.language() == "en"


def test_training_data_starts_with_the_language_token_and_does_not_predict_it(network, tokenizer):
    entries = open_dataset("scenes:6").split("train")
    end = network.config.decoder.eos_token_id
    settings = {"num_views": 1, "captions_per_image": 3, "max_caption_tokens": 90}
    for language, token in (("en", EN), ("de", DE), ("", EN)):
        data = TrainingData(entries, tokenizer, network.config, None, language=language, **settings)
        batch = data.batch([0, 1], random.Random(0))
        captions = [tokenizer.encode(text) for entry in entries[:2] for text in entry.captions]
        for row, is_target in zip(batch.tokens.tolist(), batch.is_target.tolist(), strict=True):
            assert row[:2] == [network.config.decoder.bos_token_id, token]
            targets = [target for target, counted in zip(row[1:], is_target, strict=True) if counted]
            assert targets[:-1] in captions
            assert targets[-1] == end
            assert not is_target[0], "the language token is an input, not a target"


def test_a_saved_checkpoint_captions_in_both_languages_over_http(network, tokenizer, photo, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", network.config, network.state_dict(), tokenizer, "# Card")
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert (loaded.config.languages, loaded.config.language_token_ids) == (("en", "de"), (EN, DE))
    captioner = Captioner.from_checkpoint(Checkpoint(loaded.network, loaded.tokenizer, ""), DevicePolicy())
    with TestClient(create_app({"tiny": captioner}, Settings())) as client:
        bodies = {
            language: client.post("/v1/captions", content=photo(), params={"language": language}).json()
            for language in ("en", "de")
        }
    assert bodies["en"]["captions"][0]["text"] != bodies["de"]["captions"][0]["text"]


def test_evaluation_captions_in_the_language_of_the_references_if_there_is_one(captioner):
    images = [png_bytes(scene.render()) for scene in held_out_scenes(4)]
    options = GenerationOptions(strategy="greedy", max_words=6)
    texts = {language: caption_images(captioner, images, options, language=language) for language in ("", "en", "de", "fr")}
    assert texts["de"] != texts["en"]
    assert texts[""] == texts["fr"] == texts["en"], "another language has the captions of the first"
