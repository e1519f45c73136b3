"""What a hub may say of the weights: believed where it is whole, else refused in a sentence."""

import hashlib

import download_weights
import pytest
from download_weights import DownloadError, describe, flaw

hub = pytest.importorskip("huggingface_hub")
from huggingface_hub.hf_api import ModelInfo  # noqa: E402

UNET = "unet/diffusion_pytorch_model.safetensors"


def sibling(name, **changed):
    said = {"rfilename": name, "size": 7, "blobId": "a" * 40}
    if name.endswith(".safetensors"):
        said["lfs"] = {"size": 7, "sha256": "b" * 64, "pointerSize": 134}
    return said | changed


def answer(**changed):
    """A whole description, but for what is changed of the UNet's."""
    files = [sibling(n, **(changed if n == UNET else {})) for n in download_weights.wanted()]
    return {"id": "a/b", "siblings": files}


@pytest.fixture
def says(monkeypatch):
    """Has the client read the hub's JSON as it does."""

    def says(content):
        monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: ModelInfo(**content))

    return says


def test_a_whole_description_is_believed(says):
    says(answer())
    assert [file.rfilename for file in describe()] == download_weights.wanted()


LFS = {"size": 7, "sha256": "b" * 64, "pointerSize": 134}
LACKING = [
    dict(size=None),
    dict(size="7"),
    dict(size=-1),
    dict(size=True),
    dict(size=10**400),
    dict(lfs=None),
    dict(lfs=LFS | {"sha256": None}),
    dict(lfs=LFS | {"sha256": 5}),
    dict(lfs=LFS | {"sha256": "b" * 63 + "/"}),
    dict(lfs=LFS | {"sha256": "b" * 40}),
]


@pytest.mark.parametrize("changed", LACKING)
def test_weights_without_a_size_or_a_sha256_are_refused_by_name(says, changed):
    says(answer(**changed))
    with pytest.raises(DownloadError, match=f"no size and checksum for {UNET}$"):
        describe()


@pytest.mark.parametrize(
    "content",
    [
        {"id": "a/b", "siblings": [5]},
        {"id": "a/b", "siblings": 5},
        {"id": "a/b", "siblings": ["unet"]},
        {"id": "a/b", "siblings": [{}]},
        {"id": "a/b", "siblings": [sibling("a", rfilename=["a"])]},
        answer(lfs={}) | {"siblings": [sibling(UNET, lfs={"size": 7})]},
        {"siblings": []},
        [],
    ],
)
def test_an_answer_that_describes_no_model_is_a_sentence(monkeypatch, content):
    def model_info(*_, **__):
        return ModelInfo(**content)

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    with pytest.raises(DownloadError, match="the hub's answer is no description of a model"):
        describe()


def test_json_that_is_too_deep_is_a_sentence(monkeypatch):
    def model_info(*_, **__):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    with pytest.raises(DownloadError, match="the hub's answer is no description of a model"):
        describe()


def test_a_file_is_whole_by_its_size_and_its_checksum(tmp_path, says):
    body = b'{"a":1}'
    says(answer(lfs=LFS | {"sha256": hashlib.sha256(body).hexdigest()}))
    *_, unet = describe()
    config = describe()[0]
    config.blob_id = hashlib.sha1(b"blob 7\0" + body).hexdigest()
    for file in (unet, config):
        path = tmp_path / file.rfilename
        path.parent.mkdir(exist_ok=True)
        assert flaw(tmp_path, file) == "is missing"
        path.write_bytes(body)
        assert flaw(tmp_path, file) is None
        path.write_bytes(body[:-1])
        assert flaw(tmp_path, file) == "has 6 bytes instead of 7"
        path.write_bytes(body[:-1] + b"!")
        assert "does not have the sha" in flaw(tmp_path, file)
