"""Labelled data sets for tests: small generated scenes, or chips of aerial photographs with their trees.

The same scenes can carry COCO, YOLO and BDD100K labels side by side, and what each format says can be read back as one
order-free collection.
"""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

CLASSES = ("car", "person", "traffic sign")
TREE = 16
"""Pixels: the side of the box drawn around a tree's centre."""


class Thing(NamedTuple):
    """A filled rectangle in a scene: its class, left, top, width and height in pixels."""

    kind: int
    x: int
    y: int
    width: int
    height: int


class Scene(NamedTuple):
    key: str
    width: int
    height: int
    things: list[Thing]


def write_scenes(root: Path, count: int, suffix: str = ".jpg", folder: str = "images") -> list[Scene]:
    """`count` pictures, a quarter of them in val, in a few sizes."""
    scenes = []
    for index in range(count):
        split = "val" if index % 4 == 3 else "train"
        rng = np.random.default_rng(index)
        width, height = ((32, 24), (24, 32), (40, 24))[index % 3]
        things = [_thing(rng, width, height) for _ in range(index % 4)]
        scene = Scene(f"{folder}/{split}/{index:06d}{suffix}", width, height, things)
        _save(root / scene.key, _paint(rng, scene))
        scenes.append(scene)
    return scenes


def add_coco(root: Path, scenes: Iterable[Scene]) -> None:
    """annotations/instances_{train,val}.json; file names as in COCO, without their folder."""
    for split, some in _splits(scenes).items():
        images, annotations = [], []
        for number, scene in enumerate(some, start=1):
            name = Path(scene.key).name
            images.append({
                "id": number, "file_name": name, "width": scene.width, "height": scene.height, "license": 1,
                "coco_url": f"http://images.example.org/{split}/{name}", "date_captured": "2013-11-14 17:02:52",
            })  # fmt: skip
            annotations += [
                {
                    "id": len(annotations) + 1 + offset, "image_id": number, "category_id": thing.kind + 1,
                    "bbox": [thing.x + 0.25, thing.y, thing.width, thing.height], "iscrowd": 0,
                    "area": thing.width * thing.height / 3,
                    "segmentation": [[thing.x, thing.y, thing.x + thing.width, thing.y, thing.x, thing.y + 1.5]],
                }
                for offset, thing in enumerate(scene.things)
            ]  # fmt: skip
        write_coco(root / f"annotations/instances_{split}.json", images, annotations)


def write_coco(path: Path, images: list[dict], annotations: list[dict], **more: object) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    dump(path, {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories, **more})


def add_yolo(root: Path, scenes: Iterable[Scene]) -> None:
    """labels/{train,val}/NAME.txt, data.yaml as published data sets have it, and a list of the pictures of a split."""
    for split, some in _splits(scenes).items():
        for scene in some:
            lines = [
                f"{thing.kind} {(thing.x + thing.width / 2) / scene.width:.6f} "
                f"{(thing.y + thing.height / 2) / scene.height:.6f} "
                f"{thing.width / scene.width:.6f} {thing.height / scene.height:.6f}\n"
                for thing in scene.things
            ]
            write(root / f"labels/{split}/{Path(scene.key).stem}.txt", "".join(lines))
        write(root / f"{split}.txt", "".join(f"./{scene.key}\n" for scene in some))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    write(
        root / "data.yaml",
        "# Scenes\npath: ../datasets/scenes  # root\ntrain: images/train\nval: images/val  # 1 in 4\n"
        f"test:\n\nnames:\n{names}\ndownload: https://example.org/scenes.zip\n",
    )


def add_bdd100k(root: Path, scenes: Iterable[Scene]) -> None:
    """labels/det_20/det_{train,val}.json (lists of frames), and one file a picture as in the older releases."""
    for split, some in _splits(scenes).items():
        frames = []
        for scene in some:
            labels = [
                {"id": str(number), "category": CLASSES[thing.kind], "attributes": {"occluded": False}, "box2d": {
                    "x1": thing.x, "y1": thing.y, "x2": thing.x + thing.width, "y2": thing.y + thing.height - 0.5,
                }}
                for number, thing in enumerate(scene.things)
            ]  # fmt: skip
            attributes = {"weather": "clear", "timeofday": "daytime"}
            name = Path(scene.key).name
            frames.append({"name": name, "attributes": attributes, "timestamp": 10000, "labels": labels})
            old = {"name": Path(name).stem, "attributes": attributes}
            old["frames"] = [{"timestamp": 10000, "objects": labels}]
            dump(root / f"labels/100k/{split}/{Path(name).stem}.json", old)
        dump(root / f"labels/det_20/det_{split}.json", frames)


def write_aerial(root: Path, shared: Path, count: int | None = None) -> int:
    """Chips of aerial/test with every tree as a COCO keypoint and a box around it; how many trees there are."""
    source = shared / "data" / "aerial" / "test"
    images, annotations = [], []
    for number, chip in enumerate(sorted(source.glob("rgb/*"))[:count], start=1):
        (root / "chips").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(chip, root / "chips" / chip.name)
        images.append({"id": number, "file_name": f"chips/{chip.name}", "width": 256, "height": 256})
        with (source / "trees" / f"{chip.stem}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                annotations.append(_tree(len(annotations) + 1, number, int(row["x"]), int(row["y"])))
    trees = [{"id": 1, "name": "tree", "keypoints": ["centre"], "skeleton": []}]
    dump(root / "trees.json", {"images": images, "annotations": annotations, "categories": trees})
    return len(annotations)


def coco_labels(root: Path) -> Counter:
    """Every annotation of every JSON file, with the stem of its picture in place of its id."""
    found: Counter = Counter()
    for path in sorted(root.rglob("*.json")):
        content = json.loads(path.read_text())
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        for annotation in content["annotations"]:
            said = {name: value for name, value in annotation.items() if name not in ("id", "image_id")}
            found[(path.name, stems[annotation["image_id"]], json.dumps(said, sort_keys=True))] += 1
    return found


def yolo_labels(root: Path) -> Counter:
    """Every line of every label, with the stem of its picture."""
    return Counter(
        (path.parent.name, path.stem, line)
        for path in (root / "labels").rglob("*.txt")
        for line in path.read_text().splitlines()
    )


def bdd100k_labels(root: Path) -> Counter:
    """Every label of every frame, in both forms of the format."""
    found: Counter = Counter()
    for path in sorted((root / "labels").rglob("*.json")):
        content = json.loads(path.read_text())
        old = isinstance(content, dict)
        for frame in content["frames"] if old else content:
            stem = content["name"] if old else Path(frame["name"]).stem
            for label in frame["objects" if old else "labels"]:
                found[(path.parent.name, stem, json.dumps(label, sort_keys=True))] += 1
    return found


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def dump(path: Path, content: object) -> None:
    write(path, json.dumps(content))


def _splits(scenes: Iterable[Scene]) -> dict[str, list[Scene]]:
    splits: dict[str, list[Scene]] = {}
    for scene in scenes:
        splits.setdefault(Path(scene.key).parent.name, []).append(scene)
    return splits


def _thing(rng: np.random.Generator, width: int, height: int) -> Thing:
    x, y = int(rng.integers(0, width - 8)), int(rng.integers(0, height - 8))
    return Thing(
        int(rng.integers(len(CLASSES))), x, y, int(rng.integers(4, width - x)), int(rng.integers(4, height - y))
    )


def _paint(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    picture = np.full((scene.height, scene.width, 3), rng.integers(0, 256, 3), np.uint8)
    for thing in scene.things:
        picture[thing.y : thing.y + thing.height, thing.x : thing.x + thing.width] = rng.integers(0, 256, 3)
    return picture


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def _tree(number: int, image: int, x: int, y: int) -> dict:
    left, top = max(0, x - TREE // 2), max(0, y - TREE // 2)
    width, height = min(256, x + TREE // 2) - left, min(256, y + TREE // 2) - top
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": width * height,
        "bbox": [left, top, width, height], "keypoints": [x, y, 2], "num_keypoints": 1,
    }  # fmt: skip
