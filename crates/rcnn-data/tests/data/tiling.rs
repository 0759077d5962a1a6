//! Large pictures cut into tiles.

use std::fs;

use rcnn_data::tile::{TileOptions, tile};
use rcnn_data::{DataError, ReadOptions, read};
use rcnn_types::TileGrid;
use serde_json::json;

use crate::common::{Folder, boxes_of};

const OPTIONS: TileOptions = TileOptions {
    grid: TileGrid {
        side: 60,
        overlap: 0.0,
    },
    min_visible: 0.3,
    skip_empty: false,
};

/// A picture of 120x60, which makes two tiles, and one of 50x40 with no objects, in the splits train and val.
fn fish() -> Folder {
    let folder = Folder::new();
    folder.picture("images/a.png", 120, 60);
    folder.picture("images/b.jpg", 50, 40);
    let square = |x1, y1, x2, y2| json!([[x1, y1, x2, y1, x2, y2, x1, y2]]);
    let train = json!({
        "images": [{"id": 7, "file_name": "a.png", "width": 120, "height": 60}],
        "annotations": [
            // A quarter of it is in the first tile, in which it has one of its keypoints.
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [55, 10, 20, 20], "area": 400,
             "segmentation": square(55, 10, 75, 30), "keypoints": [57, 12, 2, 70, 12, 2],
             "num_keypoints": 2, "mood": "gay"},
            // Half of it in each; its mask is in the second, but for a corner.
            {"id": 2, "image_id": 7, "category_id": 9, "bbox": [50, 40, 20, 10], "area": 110,
             "segmentation": square(59, 40, 70, 50)},
            {"id": 3, "image_id": 7, "category_id": 9, "bbox": [0, 0, 120, 60], "iscrowd": 1, "area": 7200,
             "segmentation": {"size": [60, 120], "counts": [0, 7200]}},
        ],
        "categories": [{"id": 9, "name": "fish", "keypoints": ["left_fin", "right_fin"], "skeleton": [[1, 2]]}],
    });
    folder.file("annotations/instances_train.json", train.to_string());
    let val = json!({
        "images": [{"id": 8, "file_name": "b.jpg", "width": 50, "height": 40}],
        "annotations": [],
        "categories": train["categories"],
    });
    folder.file("annotations/instances_val.json", val.to_string());
    folder
}

#[test]
fn objects_move_to_their_tiles_with_masks_and_keypoints() {
    let folder = fish();
    let dataset = folder.read().unwrap().accept(false).unwrap();
    let out = folder.path().join("tiles");
    let mut told = Vec::new();
    let tiled = tile(&dataset, &out, &OPTIONS, |done| told.push(done)).unwrap();
    assert_eq!(told, [1, 2]);
    assert_eq!((tiled.dropped, tiled.lost, tiled.empty), (2, 0, 0));
    assert_eq!((tiled.written.images, tiled.written.boxes), (3, 2));

    let tiles = read(&out, &ReadOptions::default())
        .unwrap()
        .accept(false)
        .unwrap();
    let train = tiles.split("train").unwrap();
    assert_eq!(tiles.split("val").unwrap().samples.len(), 1);
    let whole = [0.0, 0.0, 60.0, 60.0];
    let expected = [
        ("a_0_0_60_60.png".to_string(), vec![whole], vec![1]),
        (
            "a_60_0_120_60.png".to_string(),
            vec![[0.0, 10.0, 15.0, 30.0], [0.0, 40.0, 10.0, 50.0], whole],
            vec![1, 1, 1],
        ),
    ];
    assert_eq!(boxes_of(&train), expected);
    let second = &train.samples[1];
    let fish = second.instances.get(0);
    assert_eq!(fish.mask.unwrap().area(), 300);
    assert_eq!(fish.area, 300.0);
    assert_eq!(
        fish.keypoints.unwrap().0,
        [[0.0, 0.0, 0.0], [10.0, 12.0, 2.0]]
    );
    assert_eq!(second.object_extras[0].get("mood"), Some("\"gay\""));
    assert!(second.instances.is_crowd(2));
    assert_eq!(tiles.category_ids[1], 9);
    assert_eq!(tiles.skeletons[1].names, ["left_fin", "right_fin"]);

    // Pixels are those of the picture.
    let picture = rcnn_image::open_rgb(folder.path().join("images/a.png")).unwrap();
    let tile = rcnn_image::open_rgb(&second.image).unwrap();
    assert_eq!(tile.get_pixel(3, 4), picture.get_pixel(63, 4));
    let leftovers = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(
        !leftovers
            .into_iter()
            .any(|name| name.to_string_lossy().starts_with('.'))
    );
}

#[test]
fn what_is_in_no_tile_is_lost_and_empty_tiles_may_go() {
    let folder = fish();
    let dataset = folder.read().unwrap().accept(false).unwrap();
    let options = TileOptions {
        min_visible: 0.8,
        skip_empty: true,
        ..OPTIONS
    };
    let tiled = tile(&dataset, &folder.path().join("few"), &options, |_| ()).unwrap();
    // The first fish shows three quarters.
    assert_eq!((tiled.dropped, tiled.lost, tiled.empty), (3, 1, 1));
    let error = tile(&dataset, &folder.path().join("few"), &options, |_| ()).unwrap_err();
    assert!(matches!(error, DataError::NotEmpty { .. }), "{error}");
}

#[test]
fn options_that_cannot_be_are_errors() {
    let fault = |options: TileOptions| options.validate().unwrap_err().to_string();
    let share = TileOptions {
        min_visible: 1.5,
        ..OPTIONS
    };
    assert_eq!(fault(share), "min_visible = 1.5: expected 0 to 1");
    let grid = TileGrid {
        side: 0,
        overlap: 0.0,
    };
    assert!(fault(TileOptions { grid, ..OPTIONS }).starts_with("tile = 0"));
}
