"""Labels of a translated data set: what is carried over as it is, what is made right, and what is refused."""

import json
import logging
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from pix2next.apps.labels import labels_of
from pix2next.apps.stores import FolderSource
from pix2next.errors import ConfigError, LabelError
from pix2next.images import decode_rgb

from . import label_sets
from .label_sets import add_bdd100k, add_coco, add_yolo, dump, write, write_coco, write_scenes


def carried(root, name, suffix=None, sizes=None):
    """What becomes of each file that is no picture, were all pictures translated into files with `suffix`."""
    source = FolderSource(Path(root))
    labels = labels_of(name, source)
    pictures = sorted(set(source.pictures()) - labels.label_pictures())
    renamed = {key: str(Path(key).with_suffix(suffix)) if suffix else key for key in pictures}
    sizes = {key: Image.open(Path(root) / key).size for key in pictures} if sizes is None else sizes
    return {key: labels.carried(key, source.read(key), renamed, sizes) for key in source.others()}


def same(root, files):
    return [key for key, data in files.items() if data == (Path(root) / key).read_bytes()]


def write_out(files, folder):
    for key, data in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


def image(path, size=(8, 6), **options):
    """A black picture of (width, height)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)


def entry(name, size=(8, 6), number=1, **more):
    return {"id": number, "file_name": name, "width": size[0], "height": size[1], **more}


# Equal labels


@pytest.mark.parametrize("suffix", [None, ".png"])
@pytest.mark.parametrize(
    ("name", "add", "read"),
    [
        ("coco", add_coco, label_sets.coco_labels),
        ("yolo", add_yolo, label_sets.yolo_labels),
        ("bdd100k", add_bdd100k, label_sets.bdd100k_labels),
    ],
)
def test_labels_are_equal_in_any_order(tmp_path, name, add, read, suffix):
    scenes = write_scenes(tmp_path / "src", 24)
    add(tmp_path / "src", scenes)
    dst = write_out(carried(tmp_path / "src", name, suffix), tmp_path / "dst")
    before, after = read(tmp_path / "src"), read(dst)
    assert sum(before.values()) >= sum(len(scene.things) for scene in scenes) > 30
    assert before == after


def test_trees_of_aerial_chips_are_equal(tmp_path, shared):
    trees = label_sets.write_aerial(tmp_path / "src", shared, count=8)
    files = carried(tmp_path / "src", "coco", ".jpg")
    assert trees > 100
    assert label_sets.coco_labels(tmp_path / "src") == label_sets.coco_labels(write_out(files, tmp_path / "dst"))
    assert b'"chips/' in files["trees.json"] and b".png" not in files["trees.json"]


def test_a_folder_is_carried_as_it_is(tmp_path):
    write_scenes(tmp_path, 2)
    write(tmp_path / "broken.json", "{")
    write(tmp_path / "train.txt", "/elsewhere/images/train/000000.jpg\n")
    assert same(tmp_path, carried(tmp_path, "folder", ".png")) == ["broken.json", "train.txt"]


# COCO


def test_coco_stays_byte_for_byte_where_nothing_is_wrong(tmp_path):
    image(tmp_path / "val/a.png")
    text = '{"images": [{"id":1, "file_name":"a.png","width":8,"height":6}],\n "annotations":[{"area":1.50}]}'
    write(tmp_path / "a.json", text)
    assert carried(tmp_path, "coco") == {"a.json": text.encode()}


def test_coco_names_get_the_new_suffix_in_the_style_they_came(tmp_path):
    image(tmp_path / "pictures/deep/ä.jpg")
    names = ("ä.jpg", "deep/ä.jpg", r"pictures\deep\ä.jpg", "/home/me/set/pictures/deep/ä.jpg", "./ä.jpg", "gone.jpg")
    write_coco(tmp_path / "a.json", [entry(name, number=number) for number, name in enumerate(names)], [])
    for indent in (None, 1, "\t"):
        content = json.loads((tmp_path / "a.json").read_text())
        (tmp_path / "a.json").write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n")
        data = carried(tmp_path, "coco", ".png")["a.json"]
        new = [image["file_name"] for image in json.loads(data)["images"]]
        assert new == [name.replace("ä.jpg", "ä.png") for name in names]
        assert data.decode() == json.dumps(json.loads(data), indent=indent, ensure_ascii=False) + "\n"


def test_coco_urls_no_longer_say_where_the_picture_is(tmp_path):
    image(tmp_path / "a.jpg")
    urls = {"coco_url": "http://x.org/val/a.jpg", "flickr_url": "http://flickr.org/1_z.jpg"}
    write_coco(tmp_path / "a.json", [entry("a.jpg", **urls, license=4)], [{"image_id": 1}])
    [new] = json.loads(carried(tmp_path, "coco")["a.json"])["images"]
    assert new == entry("a.jpg", license=4) | {f"rgb_{name}": url for name, url in urls.items()}


def test_an_entry_without_a_file_name_is_called_by_its_url(tmp_path):
    image(tmp_path / "val2017/7.jpg")
    image(tmp_path / "train2017/7.jpg", (6, 8))
    images = [{"id": 7, "coco_url": "http://images.example.org/val2017/7.jpg", "width": 1, "height": 1}]
    write_coco(tmp_path / "lvis.json", images, [])
    [new] = json.loads(carried(tmp_path, "coco", ".png")["lvis.json"])["images"]
    assert new == {"id": 7, "coco_url": "http://images.example.org/val2017/7.png", "width": 8, "height": 6}


def test_pictures_of_one_name_are_told_apart_by_the_labels_name_and_place(tmp_path):
    for number, folder in enumerate(("train2017", "val2017", "a", "b")):
        image(tmp_path / folder / "1.png", (8 + number, 6))
    for key in ("annotations/instances_val2017.json", "annotations/instances_train2017.json", "b/_annotations.json"):
        write_coco(tmp_path / key, [entry("1.png", (1, 1))], [])
    wide = {key: json.loads(data)["images"][0]["width"] for key, data in carried(tmp_path, "coco").items()}
    assert wide == {
        "annotations/instances_train2017.json": 8, "annotations/instances_val2017.json": 9, "b/_annotations.json": 11,
    }  # fmt: skip


def test_sizes_of_pictures_that_nothing_tells_apart_or_that_failed_stay(tmp_path):
    image(tmp_path / "x/1.png", (8, 6))
    image(tmp_path / "y/1.png", (9, 6))
    image(tmp_path / "2.png")
    write_coco(tmp_path / "a.json", [entry("1.png", (1, 1)), entry("2.png", (2, 2), 2)], [])
    sizes = {"x/1.png": (8, 6), "y/1.png": (9, 6)}
    assert same(tmp_path, carried(tmp_path, "coco", sizes=sizes)) == ["a.json"]


def test_a_wrong_size_is_made_right_and_told(tmp_path, caplog):
    image(tmp_path / "a.png", (8, 6))
    image(tmp_path / "b.png", (8, 6))
    write_coco(tmp_path / "x.json", [entry("a.png", (80, 60)), entry("b.png", (8, 6), 2)], [{"bbox": [1, 2, 70, 3]}])
    with caplog.at_level(logging.WARNING):
        files = carried(tmp_path, "coco")
    content = json.loads(files["x.json"])
    assert content["images"] == [entry("a.png"), entry("b.png", number=2)]
    assert content["annotations"] == [{"bbox": [1, 2, 70, 3]}]
    assert "1 of 2 pictures another size than they have (first: a.png, 80 x 60, which has 8 x 6)" in caplog.text


def test_coco_masks_are_labels(tmp_path):
    for key in ("val2017/1.jpg", "val2017/2.jpg", "panoptic_val2017/1.png", "segments/2.png", "stuffthingmaps/v/1.png"):
        image(tmp_path / key)
    write_coco(tmp_path / "annotations/instances_val2017.json", [entry("1.jpg")], [])
    segments = [{"image_id": 1, "file_name": "2.png", "segments_info": []}]
    write_coco(tmp_path / "annotations/panoptic_val2017.json", [entry("1.jpg")], segments)
    labels = labels_of("coco", FolderSource(tmp_path))
    assert labels.label_pictures() == {"panoptic_val2017/1.png", "segments/2.png", "stuffthingmaps/v/1.png"}


def test_other_json_is_carried_unread(tmp_path):
    image(tmp_path / "a.jpg")
    write_coco(tmp_path / "a.json", [entry("a.jpg")], [])
    for name, text in (("results.json", '[{"image_id":1,"score":0.5}]'), ("vqa.json", '{"annotations": 1}')):
        write(tmp_path / name, text)
    assert same(tmp_path, carried(tmp_path, "coco", ".png")) == ["results.json", "vqa.json"]


# How a picture lies that its labels were made on


def turned(path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image(path, size, exif=exif)


@pytest.mark.parametrize(
    ("said", "boxes", "made_on"),
    [
        ((12, 8), [], (12, 8)),  # As stored.
        ((12, 8), [[2, 2, 10, 6]], (12, 8)),
        ((12, 8), [[2, 2, 11, 6]], (12, 8)),  # A pixel over the edge is rounding.
        ((12, 8), [[0, 0, 4, 4], [1, 2, 5, 10]], (8, 12)),  # Boxes that only the upright picture holds.
        ((8, 12), [[1, 2, 5, 10]], (8, 12)),  # Upright.
        ((12, 8), [[0, 0, 40, 40]], (12, 8)),  # Boxes that nothing holds say nothing.
    ],
)
def test_coco_says_which_way_the_labelled_picture_lay(tmp_path, said, boxes, made_on):
    turned(tmp_path / "a.jpg", (12, 8), 6)
    write_coco(tmp_path / "a.json", [entry("a.jpg", said)], [{"image_id": 1, "bbox": box} for box in boxes])
    write_coco(tmp_path / "captions.json", [entry("a.jpg", said)], [{"image_id": 1, "caption": "a car"}])
    assert labels_of("coco", FolderSource(tmp_path)).sizes() == {"a.jpg": made_on}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_can_be_read_as_it_is_stored(kind, orientation):
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :16] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    Image.fromarray(stored).save(file, kind, exif=exif)
    assert decode_rgb(file.getvalue(), "a picture").shape[:2] == ((16, 24) if orientation < 5 else (24, 16))
    assert np.abs(decode_rgb(file.getvalue(), "a picture", upright=False).astype(int) - stored).mean() < 2


# YOLO


def test_yolo_labels_stay_and_its_yaml_leads_to_the_new_pictures(tmp_path):
    add_yolo(tmp_path, write_scenes(tmp_path, 8))
    files = carried(tmp_path, "yolo")
    assert set(files) - set(same(tmp_path, files)) == {"data.yaml"}
    assert files["data.yaml"].decode() == (tmp_path / "data.yaml").read_text().replace(
        "../datasets/scenes", "null"
    ).replace("https://example.org/scenes.zip", "null")


def test_yolo_lists_get_the_new_suffix(tmp_path):
    add_yolo(tmp_path, write_scenes(tmp_path, 8))
    files = carried(tmp_path, "yolo", ".png")
    assert set(files) - set(same(tmp_path, files)) == {"data.yaml", "train.txt", "val.txt"}
    assert files["val.txt"] == b"./images/val/000003.png\n./images/val/000007.png\n"


@pytest.mark.parametrize(
    ("path", "place", "new_path", "new_place"),
    [
        (None, "images/train", None, "images/train"),
        (None, "../images/train", None, "../images/train"),  # As Roboflow exports it, and Ultralytics reads it.
        (None, "/data/set/images/train", None, "images/train"),
        (None, "set/images/train/", None, "images/train"),
        (".", "images/train", None, "images/train"),
        ("/data/set", "images/train", None, "images/train"),
        ("/data/set", ".", None, "."),
        ("set", "train.txt", None, "train.txt"),
        ("/data/set/images", "train", None, "images/train"),
        ("/data/set", "/data/set/images/train", None, "images/train"),
        ("/data/set", "nowhere", None, "nowhere"),
        ("/data/set", ["images/train", "images/val"], None, ["images/train", "images/val"]),
        ("/data/set/images", ["train", "val"], None, ["images/train", "images/val"]),
    ],
)
def test_yaml_places(tmp_path, path, place, new_path, new_place):
    add_yolo(tmp_path, write_scenes(tmp_path, 4))
    content = {"path": path, "train": place, "val": "images/val", "names": ["car"]}
    write(tmp_path / "data.yaml", yaml.safe_dump({key: value for key, value in content.items() if value}))
    new = yaml.safe_load(carried(tmp_path, "yolo")["data.yaml"])
    assert (new.get("path"), new["train"], new["names"]) == (new_path, new_place, ["car"])


def test_a_yaml_in_a_folder_of_its_own(tmp_path):
    add_yolo(tmp_path, write_scenes(tmp_path, 4))
    text = "path: /data/set # here\ntrain:\n  - images/train # one\n  - 'images/val'\n"
    text += "val: [images/val, train.txt]\nnc: 3\n"
    write(tmp_path / "cfg/a b/set.yml", text + "download: |\n  import os\n  print('x')\nnames: [a, b, c]\n")
    new = carried(tmp_path, "yolo")["cfg/a b/set.yml"].decode()
    assert new == (
        "path: null # here\ntrain:\n  - ../../images/train # one\n  - ../../images/val\n"
        "val: [../../images/val, ../../train.txt]\nnc: 3\ndownload: null\nnames: [a, b, c]\n"
    )


def test_yaml_that_names_no_splits_is_carried(tmp_path):
    add_yolo(tmp_path, write_scenes(tmp_path, 4))
    write(tmp_path / "hyp.yaml", "path: /data/set\nlr0: !float 0.1\n")
    write(tmp_path / "list.yaml", "- train\n")
    assert {"hyp.yaml", "list.yaml"} <= set(same(tmp_path, carried(tmp_path, "yolo", ".png")))


def test_lists_lead_to_the_new_pictures(tmp_path, caplog):
    for key in ("images/train/1.jpg", "images/val/1.jpg", "images/val/2.jpg"):
        image(tmp_path / key)
    write(tmp_path / "labels/val/2.txt", "")
    lines = {
        "/data/set/images/val/2.jpg": "./../images/val/2.png",
        "../images/val/2.jpg": "../images/val/2.png",
        "./../images/val/1.jpg": "./../images/val/1.png",
        "images/train/1.jpg": "images/train/1.png",
        "set/images/train/1.jpg": "./../images/train/1.png",
        r"C:\set\images\val\2.jpg": "./../images/val/2.png",
        "1.jpg": "1.png",  # One of two: which, is not ours to say.
        "/data/other/9.jpg": "/data/other/9.jpg",
        "": "",
    }
    write(tmp_path / "lists/all.txt", "\r\n".join(lines))
    with caplog.at_level(logging.WARNING):
        new = carried(tmp_path, "yolo", ".png")["lists/all.txt"].decode()
    assert new.split("\r\n") == list(lines.values())
    assert "lists/all.txt names 1 pictures that are not in the data set (first: /data/other/9.jpg)" in caplog.text


def test_what_trainers_made_of_the_rgb_pixels_is_left_out(tmp_path):
    add_yolo(tmp_path, write_scenes(tmp_path, 4))
    for key in ("labels/train.cache", "images/train/000000.npy", "priors.npy"):
        write(tmp_path / key, "x")
    files = carried(tmp_path, "yolo")
    assert [key for key, data in files.items() if data is None] == ["images/train/000000.npy", "labels/train.cache"]
    assert files["priors.npy"] == b"x"


@pytest.mark.parametrize(
    ("picture", "label"),
    [("images/a.jpg", "labels/a.txt"), ("train/images/a.b.jpg", "train/labels/a.b.txt"),
     ("images/images/a.jpg", "images/labels/a.txt"), ("obj/a.jpg", "obj/a.txt"), ("a.jpg", "a.txt")],
)  # fmt: skip
def test_where_a_yolo_label_lies(tmp_path, picture, label):
    image(tmp_path / picture)
    write(tmp_path / label, "0 0.5 0.5 1 1\n1 0.1 0.1 0.2 0.1 0.2 0.2\n\n")
    assert same(tmp_path, carried(tmp_path, "yolo", ".png")) == [label]


# BDD100K


def test_bdd100k_names_urls_and_sizes(tmp_path):
    image(tmp_path / "images/100k/val/a.jpg", (8, 6))
    image(tmp_path / "images/track/val/v1/v1-01.jpg", (8, 6))
    image(tmp_path / "images/track/val/v2/v2-01.jpg", (9, 6))
    frames = [
        {"name": "a.jpg", "url": "https://s3.example.org/a.jpg", "size": {"width": 1, "height": 1}, "labels": None},
        {
            "name": "v2-01.jpg",
            "videoName": "v2",
            "url": "v2/v2-01.jpg",
            "size": {"width": 1, "height": 1},
            "labels": [],
        },
        {"name": "gone.jpg", "labels": [{"id": "1", "poly2d": [{"vertices": [[1.5, 2]]}]}]},
    ]
    new = [
        {"name": "a.png", "rgb_url": "https://s3.example.org/a.jpg", "size": {"width": 8, "height": 6}, "labels": None},
        {
            "name": "v2-01.png",
            "videoName": "v2",
            "url": "v2/v2-01.png",
            "size": {"width": 9, "height": 6},
            "labels": [],
        },
        frames[2],
    ]
    dump(tmp_path / "labels/list.json", frames)
    dump(tmp_path / "labels/set.json", {"frames": frames, "config": {"attributes": []}})
    files = carried(tmp_path, "bdd100k", ".png")
    assert json.loads(files["labels/list.json"]) == new
    assert json.loads(files["labels/set.json"]) == {"frames": new, "config": {"attributes": []}}
    assert labels_of("bdd100k", FolderSource(tmp_path)).sizes()["images/100k/val/a.jpg"] == (1, 1)


def test_bdd100k_files_of_one_picture_and_masks_stay(tmp_path):
    scenes = write_scenes(tmp_path, 4)
    add_bdd100k(tmp_path, scenes)
    image(tmp_path / "labels/sem_seg/masks/train/000000.png")
    image(tmp_path / "drivable_maps/labels/train/000000.png")
    files = carried(tmp_path, "bdd100k", ".png")
    assert {key for key in files if "100k" in key} <= set(same(tmp_path, files))
    assert set(files) - set(same(tmp_path, files)) == {"labels/det_20/det_train.json", "labels/det_20/det_val.json"}
    masks = labels_of("bdd100k", FolderSource(tmp_path)).label_pictures()
    assert masks == {"labels/sem_seg/masks/train/000000.png", "drivable_maps/labels/train/000000.png"}
    assert same(tmp_path, carried(tmp_path, "bdd100k")) == list(files)


# What is refused


@pytest.mark.parametrize(
    ("name", "key", "text", "sentence"),
    [
        ("coco", "a.json", "{", r"^a.json is no JSON: .* in line 1, column 2$"),
        ("coco", "a.json", "\xff", "^a.json is no JSON: "),
        ("coco", "a.json", "[" * 100_000, "^a.json is no JSON: "),
        ("coco", "a.json", '{"images": 3, "annotations": []}', "^a.json: images is no list, but 3$"),
        ("coco", "a.json", '{"images": [[]], "categories": []}', r"^a.json: images\[0\] is no object, but \[\]$"),
        ("coco", "a.json", '{"images": [{"id": 1}], "categories": []}', r"^a.json: images\[0\] has no file_name"),
        ("coco", "a.json", '{"images": [], "annotations": {"a": 1}}', "^a.json: annotations is no list"),
        ("coco", "a.json", '{"images": [{"file_name": "x.jpg"}], "annotations": []}', "^no picture that a.json names"),
        ("yolo", "labels/a.txt", "0 0.5 0.5 1\n", "^labels/a.txt, line 1 is no class with a box or points: '0 0.5"),
        ("yolo", "labels/a.txt", "\n0 0.5 0.5 1 1\ncar 0 0 1 1", "line 3 is no class"),
        ("yolo", "labels/a.txt", "0.5 0.5 0.5 1 1", "line 1 is no class"),
        ("yolo", "labels/a.txt", "0 nan 0.5 1 1", "line 1 is no class"),
        ("yolo", "labels/a.txt", "\xff", "^labels/a.txt is no text"),
        ("yolo", "data.yaml", "train: [", "^data.yaml is no YAML: "),
        ("bdd100k", "a.json", "", "^a.json is no JSON: "),
        ("bdd100k", "a.json", '{"frames": 3}', "^a.json: frames is no list, but 3$"),
        ("bdd100k", "a.json", '[{"name": "a.jpg", "labels": 3}]', r"^a.json: frames\[0\].labels is no list, but 3$"),
        ("bdd100k", "a.json", '[{"name": "a.jpg", "labels": []}, 3]', r"^a.json: frames\[1\] is no object"),
        ("bdd100k", "a.json", '[{"name": 3, "labels": []}]', r"^a.json: frames\[0\] has no name"),
        ("bdd100k", "a.json", '[{"name": "x.jpg", "labels": []}]', "^no picture that a.json names is there"),
    ],
)  # fmt: skip
def test_malformed_labels_are_one_sentence(tmp_path, name, key, text, sentence):
    image(tmp_path / "images/a.jpg")
    write(tmp_path / "labels/a.txt", "")
    (tmp_path / key).write_bytes(text.encode("latin-1"))
    with pytest.raises(LabelError, match=sentence) as error:
        labels_of(name, FolderSource(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("coco", "these are no COCO labels: no .json file has a list of images"),
        ("yolo", r"no picture has any \(of images/a.jpg they would be in labels/a.txt\)"),
        ("bdd100k", "these are no BDD100K labels"),
        ("voc", "no labels are known as voc; known are coco, yolo, bdd100k, folder"),
    ],
)
def test_labels_of_another_format(tmp_path, name, sentence):
    image(tmp_path / "images/a.jpg")
    write(tmp_path / "other.json", '{"version": 1}')
    write(tmp_path / "numbers.json", "[1, 2]")
    with pytest.raises(ConfigError, match=sentence):
        labels_of(name, FolderSource(tmp_path))


def test_the_generated_scenes_show_what_they_say(tmp_path):
    scenes = write_scenes(tmp_path, 12, suffix=".png")
    for scene in scenes:
        picture = cv2.imread(str(tmp_path / scene.key))
        assert picture.shape == (scene.height, scene.width, 3)
        if scene.things:
            last = scene.things[-1]
            assert np.ptp(picture[last.y : last.y + last.height, last.x : last.x + last.width], axis=(0, 1)).max() == 0
    assert {scene.key.split("/")[1] for scene in scenes} == {"train", "val"}
