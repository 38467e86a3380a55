"""The Captioner: caption, stream, explain."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from model import Captioner, CaptionRequest, CaptionResult, Checkpoint, DevicePolicy, GenerationOptions, TextError, Word
from tests.helpers import hypotheses_of, watched


def test_every_word_of_a_caption_has_its_text_and_figures(tiny_captioner, views):
    for result in tiny_captioner.caption(views, GenerationOptions(num_beams=3, num_return_sequences=2)):
        assert len(result.captions) == 2
        for caption in result.captions:
            for word in caption.words:
                assert caption.text[word.start : word.end] == word.text
                assert word.map.values.sum().item() == pytest.approx(1.0)
                assert (word.map.values >= 0).all()
                assert word.map.values.shape == (result.grid.num_patches,)
                assert 0 < word.probability <= 1


def test_maps_and_reliance_do_not_change_the_captions(tiny_captioner, views):
    captions_only = tiny_captioner.caption(views, maps="none", reliance=False)
    full = tiny_captioner.caption(views)
    for one, two in zip(captions_only, full, strict=True):
        assert one.captions[0].text == two.captions[0].text
        assert one.captions[0].log_probability == pytest.approx(two.captions[0].log_probability, abs=1e-5)
        assert all(word.map is word.box is word.image_reliance is None for word in one.captions[0].words)


@pytest.mark.parametrize(
    "options",
    [GenerationOptions(), GenerationOptions(strategy="greedy"), GenerationOptions(num_beams=2, prompt="a dog", max_words=6),
     GenerationOptions(strategy="sample", seed=3)],
)  # fmt: skip
def test_a_stream_gives_the_words_of_the_result_in_order(tiny_captioner, views, options):
    events = list(tiny_captioner.stream(views[0], options))
    (result,) = [event for event in events if isinstance(event, CaptionResult)]
    words = [event for event in events if isinstance(event, Word)]
    (expected,) = tiny_captioner.caption(views[:1], options)

    assert events[-1] is result
    assert result.captions[0].text == expected.captions[0].text
    assert len(words) == len(expected.captions[0].words)
    for word, other in zip(words, expected.captions[0].words, strict=True):
        assert (word.text, word.start, word.end, word.box) == (other.text, other.start, other.end, other.box)
        assert word.log_probability == pytest.approx(other.log_probability, abs=1e-5)
        torch.testing.assert_close(word.map.values, other.map.values, atol=1e-6, rtol=0)


def test_a_word_is_streamed_before_the_caption_is_finished(tiny_captioner, views):
    stream = tiny_captioner.stream(views[0], GenerationOptions(strategy="greedy", min_words=6))
    first = next(stream)
    assert isinstance(first, Word)
    stream.close()


def test_the_words_of_a_prompt_have_the_figures_of_an_explanation(tiny_captioner, views):
    """A prompt and an explained text go through the same scoring pass, and later words do not affect earlier ones."""
    prompt = "A brown dog runs"
    made = tiny_captioner.caption(views, GenerationOptions(prompt=prompt, num_beams=2))
    explained = tiny_captioner.explain(views, [[f"{prompt} on the grass"]] * 3)
    for one, two in zip(made, explained, strict=True):
        assert one.captions[0].text.startswith(prompt)
        for word, other in list(zip(one.captions[0].words, two.captions[0].words, strict=False))[:3]:
            assert (word.text, word.start, word.end, word.box) == (other.text, other.start, other.end, other.box)
            assert word.log_probability == pytest.approx(other.log_probability, abs=1e-5)
            assert word.image_reliance == pytest.approx(other.image_reliance, abs=1e-5)
            torch.testing.assert_close(word.map.values, other.map.values, atol=1e-6, rtol=0)


def test_later_words_do_not_change_the_figures_of_earlier_ones(tiny_captioner, views):
    one, two = tiny_captioner.explain([views[0]] * 2, [["a brown dog runs"], ["a brown dog sleeps all day"]])
    for word, other in list(zip(one.captions[0].words, two.captions[0].words, strict=False))[:3]:
        assert word.log_probability == pytest.approx(other.log_probability, abs=1e-6)
        torch.testing.assert_close(word.map.values, other.map.values, atol=1e-7, rtol=0)


def test_a_text_or_prompt_that_is_too_long_is_refused(tiny_captioner, views):
    with pytest.raises(TextError, match="positions"):
        tiny_captioner.explain(views[:1], [["dog " * 200]])
    with pytest.raises(TextError, match="room for 95"):
        tiny_captioner.caption(views[:1], GenerationOptions(prompt="dog " * 96))


def test_captions_of_one_image_are_explained_together_as_alone(tiny_captioner, views):
    texts = ["a brown dog runs", "two dogs", "a girl"]
    (together,) = tiny_captioner.explain(views[:1], [texts])
    for text, caption in zip(texts, together.captions, strict=True):
        (alone,) = tiny_captioner.explain(views[:1], [[text]])
        assert caption.log_probability == pytest.approx(alone.captions[0].log_probability, abs=1e-5)
        assert caption.text == text


@pytest.mark.parametrize("strategy", ["greedy", "beam", "sample"])
def test_a_limit_of_zero_words_gives_an_empty_caption(tiny_captioner, views, strategy):
    for result in tiny_captioner.caption(views, GenerationOptions(strategy=strategy, max_words=0)):
        assert len(result.captions) == 1
        assert result.captions[0].words == ()


@pytest.mark.parametrize("words", [1, 2, 5])
def test_beam_search_returns_the_requested_number_of_distinct_captions(tiny_captioner, views, words):
    options = GenerationOptions(num_beams=4, num_return_sequences=4, max_words=words)
    for result in tiny_captioner.caption(views, options):
        assert len(result.captions) == 4
        assert all(len(caption.words) <= words for caption in result.captions)
    features = tiny_captioner.runtime.encode(torch.stack([view.pixels for view in views]))
    for hypotheses in hypotheses_of(tiny_captioner.runtime, tiny_captioner.tokenizer, features, [options] * len(views)).values():
        assert len({(hypothesis.tokens, hypothesis.is_finished) for hypothesis in hypotheses}) == 4


def test_a_caption_ends_at_the_last_position(tiny_captioner, views):
    options = GenerationOptions(strategy="greedy", max_new_tokens=256, min_words=60, max_words=60, prompt="a dog")
    (result,) = tiny_captioner.caption(views[:1], options)
    (caption,) = result.captions
    assert caption.text.startswith("a dog")
    assert caption.finish_reason == "length"


def test_an_empty_caption_can_be_explained(tiny_captioner, views):
    (result,) = tiny_captioner.explain(views[:1], [[""]])
    assert result.captions[0].words == ()
    assert result.captions[0].log_probability < 0


def test_a_captioner_is_shared_by_threads(tiny_captioner, views):
    alone = [tiny_captioner.caption([view])[0].captions for view in views]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda view: tiny_captioner.caption([view])[0].captions[0].text, views * 4))
    assert together == [captions[0].text for captions in alone] * 4


@pytest.mark.parametrize("bfloat16_decoder", [False, True])
def test_bfloat16_gives_nearly_the_same_figures(tiny_captioner, views, bfloat16_decoder, monkeypatch):
    if bfloat16_decoder:
        monkeypatch.setattr("model.device._LARGE_DECODER", 1)
    checkpoint = Checkpoint(tiny_captioner.runtime, tiny_captioner.tokenizer, "")
    other = Captioner.from_checkpoint(checkpoint, DevicePolicy(dtype=torch.bfloat16))
    assert other.runtime.decoder.dtype == (torch.bfloat16 if bfloat16_decoder else torch.float32)
    text = "a brown dog runs"
    for one, two in zip(tiny_captioner.explain(views, [[text]] * 3), other.explain(views, [[text]] * 3), strict=True):
        for word, other in zip(one.captions[0].words, two.captions[0].words, strict=True):
            assert word.log_probability == pytest.approx(other.log_probability, abs=0.15)  # the random weights are large
            torch.testing.assert_close(word.map.values, other.map.values, atol=4e-2, rtol=0)


def test_a_captioner_does_not_change_the_network_of_its_checkpoint(tiny_captioner, views):
    checkpoint = Checkpoint(tiny_captioner.runtime, tiny_captioner.tokenizer, "")
    before = {name: value.clone() for name, value in checkpoint.network.state_dict().items()}
    texts = []
    for dtype in (torch.bfloat16, torch.float32, torch.bfloat16):
        captioner = Captioner.from_checkpoint(checkpoint, DevicePolicy(dtype=dtype))
        texts.append([result.captions[0].text for result in captioner.caption(views)])
    assert texts[0] == texts[2]
    after = checkpoint.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())


def test_a_batch_that_fails_to_add_requests_is_not_changed(tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)
    batch = captioner.batch()
    before = CaptionRequest(view=views[0], options=GenerationOptions())
    batch.add(["before"], [before])
    requests = [
        CaptionRequest(view=views[1], options=GenerationOptions(prompt="")),
        CaptionRequest(view=views[2], options=GenerationOptions(prompt="a brown dog")),
    ]

    def fail(tokens: torch.Tensor, weights: bool) -> None:
        raise MemoryError("while the longer prompt is read")

    runtime.before_decode = fail
    with pytest.raises(MemoryError):
        batch.add(["one", "two"], requests)
    assert batch.keys == ["before"]
    runtime.before_decode = lambda tokens, weights: None
    batch.add(["one", "two"], requests)
    while len(done := batch.step()) < 3:
        pass
    for entry, result in zip([before, *requests], batch.pop_results(done), strict=True):
        (alone,) = tiny_captioner.caption([entry.view], entry.options)
        assert [caption.text for caption in result.captions] == [caption.text for caption in alone.captions]
    assert batch.num_rows == 0


def test_a_batch_that_does_not_fit_into_memory_is_captioned_in_halves(tiny_captioner, views):
    captioner, runtime = watched(tiny_captioner)

    def exhausted(pixels: torch.Tensor) -> None:
        if pixels.size(0) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    runtime.before_encode = exhausted
    many = [*views, *views[:2]]
    expected = tiny_captioner.caption(many)
    for one, two in zip(captioner.caption(many), expected, strict=True):
        assert one.captions[0].text == two.captions[0].text
        assert one.captions[0].log_probability == pytest.approx(two.captions[0].log_probability, abs=1e-5)
    assert runtime.encoded == [5, 2, 3, 1, 2]
    runtime.before_encode = lambda pixels: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        captioner.caption(views[:1])
