"""The package azure-ai-vision-imageanalysis."""

from __future__ import annotations

import pytest


def client_of(service, key="any"):
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.core.credentials import AzureKeyCredential

    return ImageAnalysisClient(endpoint=service.url, credential=AzureKeyCredential(key), retry_total=0)


def test_analyze_is_the_caption_with_its_confidence(service, text):
    result = client_of(service).analyze(image_data=service.scene, visual_features=["CAPTION"], language="en-US")
    assert result.caption.text == text
    assert 0 < result.caption.confidence < 1
    assert (result.metadata.width, result.metadata.height) == (224, 224)
    assert result.model_version == "default"


def test_every_error_is_of_its_own_kind(service, secured):
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

    def error(where=service, image=service.scene, features=("Caption",), key="any", kind=HttpResponseError, **options):
        with pytest.raises(kind) as raised:
            client_of(where, key).analyze(image_data=image, visual_features=list(features), **options)
        return raised.value

    broken = error(image=b"\x89PNG\r\n\x1a\n broken")
    assert (broken.status_code, broken.error.code) == (400, "InvalidRequest")
    assert broken.error.innererror["code"] == "InvalidImageFormat"
    for feature in ("DenseCaptions", "Tags", "Read", "Objects", "People", "SmartCrops"):
        refused = error(features=("Caption", feature))
        assert refused.error.innererror["code"] == "NotSupportedVisualFeature"
        assert feature.lower() in refused.message.lower()
    assert error(language="fr").error.innererror["code"] == "NotSupportedLanguage"
    assert error(params={"model-name": "mine"}, kind=ResourceNotFoundError).error.innererror["code"] == "InvalidModelVersion"
    assert error(secured, kind=ClientAuthenticationError).status_code == 401
    assert client_of(secured, "a-key").analyze(image_data=service.scene, visual_features=["Caption"]).caption.text
    with service.full():
        assert error().status_code == 503
    with pytest.raises(HttpResponseError) as refused:
        client_of(service).analyze_from_url(image_url="https://example.org/a.jpg", visual_features=["Caption"])
    assert refused.value.error.innererror["code"] == "InvalidImageUrl"
