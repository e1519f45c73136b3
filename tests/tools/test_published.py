"""Published benchmarks, read from small folders in their own formats."""

import json

import numpy as np
import pytest
from evaluation import published
from PIL import Image

import ptinv


def picture(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (level, 0, 0)).save(path)


@pytest.fixture
def coco(tmp_path):
    images = [{"id": 10 * i, "file_name": f"{i}.png"} for i in range(6)]
    for i in range(6):
        picture(tmp_path / f"{i}.png", i)
    notes = [{"id": 9 - i, "image_id": 10 * (i % 5), "caption": f" text {i}\n"} for i in range(10)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return tmp_path, tmp_path / "captions.json"


def test_coco_s_pictures_are_drawn_by_the_seed_with_their_first_captions(coco):
    cases = published.coco(*coco, count=4, seed=3)
    assert [c.caption for c in cases] == [c.caption for c in published.coco(*coco, 4, 3)]
    everything = published.coco(*coco, count=None, seed=3)
    assert len(everything) == 5  # the sixth has no caption
    assert [c.caption for c in everything[:4]] == [c.caption for c in cases]
    orders = {tuple(c.caption for c in published.coco(*coco, 5, seed)) for seed in range(8)}
    assert len(orders) > 1
    for case in everything:
        edit = case.open()
        # captions 5 … 9 have the lower ids
        assert case.caption == f"text {edit.picture.getpixel((0, 0))[0] + 5}"
        assert (edit.target, edit.truth, edit.mask) == (None, None, None)


def test_imagenet_s_queries_are_the_test_half_with_both_classes(tmp_path):
    picture(tmp_path / "n01" / "a.JPEG", 1)
    lines = [",path,source,source_id,target,target_id,is_test",
             "3,n01/a.JPEG,beagle,162,Afghan hound,160,False",
             "4,n01/a.JPEG,basset,161,Afghan hound,160,True"]  # fmt: skip
    (tmp_path / "queries.csv").write_text("\n".join(lines) + "\n")
    (case,) = published.imagenet(tmp_path, tmp_path / "queries.csv", None)
    assert (case.caption, case.target) == ("basset", "Afghan hound")
    assert case.about["classes"] == [161, 160]
    assert case.open().picture.size == (32, 32)


def test_pie_bench_s_brackets_are_stripped_and_its_masks_are_runs(tmp_path):
    picture(tmp_path / "annotation_images" / "1_x" / "7.png", 1)
    one = {
        "image_path": "1_x/7.png",
        "original_prompt": "a [cat] sits",
        "editing_type_id": "1",
        "editing_prompt": "a [dog] sits",
        "blended_word": "cat dog",
        "mask": [1024, 3, 5000, 2],
    }
    (tmp_path / "mapping_file.json").write_text(json.dumps({"7": one}))
    (case,) = published.pie(tmp_path, None, None)
    assert (case.kind, case.caption, case.target) == ("1", "a cat sits", "a dog sits")
    assert case.about["blend"] == ["cat", "dog"]
    mask = np.asarray(case.open().mask)
    border = np.zeros((512, 512), bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    inner = {(int(y), int(x)) for y, x in np.argwhere((mask == 255) & ~border)}
    assert mask[border].min() == 255
    assert inner == {(2, 1), (2, 2), (5000 // 512, 5000 % 512), (5000 // 512, 5000 % 512 + 1)}


@pytest.mark.parametrize("mask", [[1, 2, 3], ["a", 2], [1.5, 2], [-5, 2], None, {"a": 1, "b": 2}])
def test_a_mask_of_something_else_is_a_sentence(mask, tmp_path):
    one = {"image_path": "7.png", "original_prompt": "a cat", "editing_prompt": "a dog",
           "editing_type_id": "1", "blended_word": "", "mask": mask}  # fmt: skip
    (tmp_path / "mapping_file.json").write_text(json.dumps({"7": one}))
    with pytest.raises(ptinv.InputError, match="mapping_file.json is not PIE-Bench's"):
        published.pie(tmp_path, None, None)


def test_a_picture_that_is_not_there_is_named(coco):
    folder, annotations = coco
    (case,) = published.coco(folder, annotations, 1, 0)
    (folder / case.about["picture"]).unlink()
    with pytest.raises(ptinv.InputError, match=case.about["picture"]):
        case.open()


def test_a_run_beyond_the_last_pixel_ends_there():
    mask = np.asarray(published.decoded([512 * 511 - 2, 10**6]))
    assert mask.shape == (512, 512) and mask[510, -2] == 255 and mask[510, -3] == 0


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', '{"images": [], "annotations": []}'])
def test_a_file_of_something_else_is_named(text, tmp_path):
    path = tmp_path / "notes.json"
    path.write_text(text)
    for load in (published.coco, published.imagenet, published.pie):
        more = (0,) if load is published.coco else ()
        with pytest.raises(ptinv.InputError, match="notes.json"):
            load(tmp_path, path, None, *more)
