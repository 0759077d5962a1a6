//! What is evaluated by hand, what is refused, and pictures of nothing and of much.

use image::{Rgb, RgbImage};
use rcnn_eval::{EvalError, Tile, contact_sheet, draw_confusion, draw_curves, evaluate, results};
use rcnn_types::boxes::shift_box;
use rcnn_types::{BBox, ImageInstances, Instances, Keypoints, Mask, Size, Skeleton};

const BOX: BBox = [10.0, 20.0, 60.0, 90.0];

fn names(classes: usize) -> Vec<String> {
    (0..classes).map(|label| format!("class {label}")).collect()
}

fn truth(image_id: u64, labels: &[usize]) -> ImageInstances {
    let boxes = (0..labels.len()).map(|i| shift_box(&BOX, 100.0 * i as f32, 100.0 * i as f32));
    ImageInstances {
        image_id,
        file_name: format!("{image_id}.jpg"),
        instances: Instances::new(boxes.collect(), labels.into()),
    }
}

fn found(image_id: u64, labels: &[usize], scores: &[f32]) -> ImageInstances {
    let mut found = truth(image_id, labels);
    found.file_name.clear();
    found.instances.scores = Some(scores.into());
    found
}

/// The message of the error for detections in image 7, which has one object of class 1.
fn refusal(found: ImageInstances) -> String {
    let error = evaluate(&[truth(7, &[1])], &[found], &names(3)).unwrap_err();
    error.to_string()
}

#[test]
fn a_small_example_by_hand() {
    // Class 1: found, found. Class 2: taken for class 1, missed (with a low score).
    let truth = [truth(1, &[1, 2, 1]), truth(2, &[2])];
    let detections = [
        found(1, &[1, 1, 1], &[0.9, 0.7, 0.8]),
        found(2, &[2], &[0.2]),
    ];
    let evaluation = evaluate(&truth, &detections, &names(3)).unwrap();

    let [one, two] = &evaluation.per_class[..] else {
        panic!("two classes")
    };
    assert!((one.ap.unwrap() - 1.0).abs() < 1e-9);
    let best = one.best_f1.unwrap();
    assert_eq!((best.score, best.f1, best.precision), (0.8, 1.0, 1.0));
    let best = two.best_f1.unwrap();
    assert_eq!((best.score, best.recall, best.precision), (0.2, 0.5, 1.0));
    assert_eq!((two.objects, two.detections), (2, 1));
    assert_eq!(evaluation.curves[0].points.len(), 3);
    // The detection of 0.7 is below the threshold.
    assert_eq!(
        evaluation.confusion.counts,
        [[0, 0, 0], [0, 2, 0], [1, 0, 1]]
    );
    let worst = evaluation.worst(10);
    assert_eq!(worst.len(), 1);
    assert_eq!(
        (worst[0].file_name.as_str(), worst[0].count()),
        ("1.jpg", 1)
    );
}

#[test]
fn classes_are_confused_at_the_same_place() {
    let truth = [truth(1, &[1, 2]), truth(2, &[1])];
    let detections = [found(1, &[1, 1], &[0.9, 0.8]), found(2, &[1], &[0.7])];
    let evaluation = evaluate(&truth, &detections, &names(3)).unwrap();
    assert_eq!(
        evaluation.confusion.counts,
        [[0, 0, 0], [0, 2, 0], [0, 1, 0]]
    );
    assert_eq!(evaluation.worst(1)[0].count(), 2, "missed, and wrong");
}

#[test]
fn json_and_table_have_what_people_ask_for() {
    let evaluation = evaluate(&[truth(1, &[1])], &[found(1, &[1], &[0.9])], &names(3)).unwrap();
    let json = serde_json::to_value(&evaluation).unwrap();
    assert!(json["AP"].as_f64().unwrap() > 0.999);
    assert!(json["APs"].is_null() && json["APm"].is_number());
    assert_eq!(json["per_class"][0]["name"], "class 1");
    assert_eq!(json["per_class"][0]["best_f1"]["f1"], 1.0);
    assert!(json["per_class"][1]["AP"].is_null() && json["per_class"][1]["best_f1"].is_null());
    assert_eq!(json["confusion"]["classes"][0], "background");
    assert!(json.get("curves").is_none() && json.get("errors").is_none());

    let table = evaluation.to_string();
    assert!(
        table.starts_with("1 image, 1 object, 1 detection\n"),
        "{table}"
    );
    assert!(
        table.contains("AP50  1.0000") && table.contains("APs        -"),
        "{table}"
    );
    assert!(
        table.contains("class 1") && !table.contains("class 2"),
        "{table}"
    );
}

#[test]
fn nothing_is_ordinary() {
    for (truth, found) in [
        (vec![], vec![]),
        (vec![truth(1, &[])], vec![]),
        (vec![truth(1, &[])], vec![found(1, &[1], &[0.5])]),
        (
            vec![truth(1, &[1]), truth(2, &[])],
            vec![found(2, &[], &[])],
        ),
    ] {
        for classes in [0, 1, 3] {
            let labels = truth.iter().flat_map(|image| &image.instances.labels);
            let labels = labels.chain(found.iter().flat_map(|image| &image.instances.labels));
            if labels.max().is_some_and(|&label| label >= classes) {
                continue;
            }
            let evaluation = evaluate(&truth, &found, &names(classes)).unwrap();
            let ap = (evaluation.objects > 0).then_some(0.0);
            assert_eq!(evaluation.summary.ap, ap);
            assert!(!evaluation.to_string().is_empty());
            assert!(!draw_curves(&evaluation).is_empty());
            assert!(!draw_confusion(&evaluation.confusion).is_empty());
        }
    }
}

#[test]
fn bad_numbers_are_refused_by_image() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let message = refusal(found(7, &[1, 2], &[0.5, bad]));
        assert!(message.contains("7 (7.jpg)"), "{message}");
        assert!(message.contains("detections: scores[1] = "), "{message}");
        for edge in 0..4 {
            let mut detections = found(7, &[1], &[0.5]);
            detections.instances.boxes[0][edge] = bad;
            let message = refusal(detections);
            assert!(
                message.contains("7 (7.jpg): detections: boxes[0] = "),
                "{message}"
            );
        }
        let mut image = truth(7, &[1]);
        image.instances.boxes[0][1] = bad;
        let error = evaluate(&[image], &[], &names(2)).unwrap_err();
        assert!(
            matches!(
                error,
                EvalError::Instances {
                    what: "objects",
                    ..
                }
            ),
            "{error}"
        );
        let mut image = truth(7, &[1]);
        image.instances.areas = Some(vec![bad]);
        let error = evaluate(&[image], &[], &names(2)).unwrap_err();
        assert!(
            error.to_string().contains("objects: areas[0] = "),
            "{error}"
        );
    }
    let mut detections = found(7, &[1], &[0.5]);
    detections.instances.boxes[0].swap(0, 2);
    assert!(refusal(detections).contains("detections: boxes[0] = "));
}

#[test]
fn labels_images_and_lengths_are_checked() {
    for label in [0, 3, usize::MAX] {
        let message = refusal(found(7, &[1, label], &[0.5, 0.4]));
        let expected = format!("image 7 (7.jpg): detections: labels[1] = {label}:");
        assert!(message.starts_with(&expected), "{message}");
        let error = evaluate(&[truth(7, &[label])], &[], &names(3)).unwrap_err();
        assert!(
            matches!(
                error,
                EvalError::Instances {
                    what: "objects",
                    ..
                }
            ),
            "{error}"
        );
    }
    assert!(refusal(found(8, &[1], &[0.5])).starts_with("image 8: "));
    let unscored = "image 7 (7.jpg): detections: scores = 0 values: expected 1, one per box";
    assert_eq!(refusal(found(7, &[1], &[])), unscored);
    assert_eq!(refusal(truth(7, &[1])), unscored);
    let one = truth(7, &[1]);
    for (crowd, areas) in [(Some(vec![false; 2]), None), (None, Some(vec![1.0; 3]))] {
        let mut image = one.clone();
        (image.instances.crowd, image.instances.areas) = (crowd, areas);
        let error = evaluate(&[image], &[], &names(2)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("values: expected 1, one per box"),
            "{error}"
        );
    }
    let twice = evaluate(&[one.clone(), one.clone()], &[], &names(2)).unwrap_err();
    assert!(matches!(twice, EvalError::DuplicateImage { .. }), "{twice}");
    let detections = found(7, &[1], &[0.5]);
    let twice = evaluate(&[one], &[detections.clone(), detections], &names(2)).unwrap_err();
    assert!(matches!(twice, EvalError::DuplicateImage { .. }), "{twice}");
}

#[test]
fn enormous_boxes_are_ordinary() {
    let (mut image, mut detections) = (truth(7, &[1, 2]), found(7, &[1, 2], &[0.5, 0.4]));
    image.instances.boxes = vec![[f32::MIN, f32::MIN, f32::MAX, f32::MAX]; 2];
    detections.instances.boxes = vec![[f32::MIN, f32::MIN, f32::MAX, f32::MAX]; 2];
    let evaluation = evaluate(&[image], &[detections], &names(3)).unwrap();
    let numbers = serde_json::to_value(&evaluation).unwrap();
    assert!(numbers["AP"].is_null() && numbers["confusion"]["counts"][1][0] == 1);
    let tile = Tile::from_errors(&RgbImage::new(640, 480), &evaluation.errors[0], &[]);
    assert!(!contact_sheet(&[tile]).is_empty());
}

#[test]
fn results_survive_writing_and_reading() {
    let mut detections = vec![found(3, &[1, 2], &[0.1, 0.3]), found(1, &[9], &[1.0 / 3.0])];
    detections[0].instances.boxes[1] = [0.1, 1.0 / 3.0, 99.7, 1234.567];
    let json = results::write(&detections, &[]);
    assert_eq!(results::read(&json).unwrap(), detections);
    assert!(results::read("[]").unwrap().is_empty());
    for bad in [
        "",
        "{}",
        r#"[{"image_id":1}]"#,
        r#"[{"image_id":-1,"category_id":1,"bbox":[0,0,1,1],"score":1}]"#,
    ] {
        assert!(
            matches!(results::read(bad), Err(EvalError::Results(_))),
            "{bad}"
        );
    }
    // Numbers beyond single precision become infinite, which an evaluation refuses.
    let huge = results::read(r#"[{"image_id":7,"category_id":1,"bbox":[0,0,1e99,1],"score":1}]"#);
    assert!(refusal(huge.unwrap().remove(0)).contains("detections: boxes[0] = "));
}

#[test]
fn the_worst_pictures_show_masks_and_keypoints() {
    let mut image = truth(1, &[1]);
    let inside = vec![12.0, 22.0, 58.0, 22.0, 58.0, 88.0, 12.0, 88.0];
    let mask = Mask::from_polygons(&[inside], Size::new(200, 200));
    image.instances.masks = Some(vec![mask]);
    let points = vec![[30.0, 40.0, 2.0], [30.0, 70.0, 1.0], [0.0; 3]];
    image.instances.keypoints = Some(vec![Keypoints(points)]);
    let skeleton = Skeleton {
        names: ["top", "bottom", "none"].map(String::from).into(),
        edges: vec![[0, 1], [1, 2]],
        flip_idx: Vec::new(),
    };
    let evaluation = evaluate(&[image], &[], &names(2)).unwrap();
    let drawn = |skeletons: &[Skeleton]| {
        let picture = RgbImage::new(200, 200);
        Tile::from_errors(&picture, &evaluation.errors[0], skeletons).picture
    };
    let (with, without) = (drawn(&[Skeleton::default(), skeleton]), drawn(&[]));
    assert_ne!(without.get_pixel(45, 50).0, [0; 3], "the mask is tinted");
    assert_eq!(without.get_pixel(5, 5).0, [0; 3], "the rest is not");
    for [x, y] in [[30, 40], [30, 70]] {
        assert_eq!(without.get_pixel(x, y).0, [255; 3], "a keypoint");
    }
    assert_ne!(with.get_pixel(30, 55), without.get_pixel(30, 55), "a line");
    assert_eq!(with.get_pixel(5, 5).0, [0; 3], "none to an unlabelled one");
    // Small pictures are enlarged, and what is drawn with them.
    let small = Tile::from_errors(&RgbImage::new(100, 100), &evaluation.errors[0], &[]);
    assert_eq!(small.picture.dimensions(), (300, 300));
    assert_eq!(small.picture.get_pixel(90, 120).0, [255; 3], "a keypoint");
}

#[test]
fn pictures_of_many_classes_and_of_odd_sizes() {
    let labels: Vec<usize> = (1..250).collect();
    let scores: Vec<f32> = labels.iter().map(|&label| label as f32 / 250.0).collect();
    let evaluation = evaluate(
        &[truth(1, &labels)],
        &[found(1, &labels, &scores)],
        &names(250),
    );
    let evaluation = evaluation.unwrap();
    assert!(draw_curves(&evaluation).width() < 4000);
    assert!(draw_confusion(&evaluation.confusion).width() < 4000);

    let errors = &evaluation.errors[0];
    for (width, height) in [(1, 1), (5000, 2), (2, 3000), (640, 480), (0, 0)] {
        let picture = RgbImage::from_pixel(width, height, Rgb([90; 3]));
        let mut tile = Tile::from_errors(&picture, errors, &[]);
        tile.title = "a very long name of a file ".repeat(20);
        let sheet = contact_sheet(&vec![tile; 5]);
        assert!(sheet.width() < 2000 && sheet.height() < 1000);
    }
    assert!(!contact_sheet(&[]).is_empty());
}
