//! Output of labelling tools and archives that is almost a data set. Each test is named after what was misread, or refused
//! without a reason.

use std::fs;

use rcnn_data::{ProblemKind as Kind, ReadOptions, read};
use serde_json::json;

use crate::common::{Folder, boxes_of, told, voc_xml};
use crate::layouts::{LINE, clean_folder, part, parts};

#[test]
fn formats_of_other_tools_are_named() {
    let cases = [
        (
            "a.json",
            r#"{"version": "5.0", "shapes": [], "imagePath": "a.png"}"#,
            "labelme's format: export COCO",
        ),
        (
            "via.json",
            r#"{"a.png7": {"filename": "a.png", "regions": []}}"#,
            "the VGG Image Annotator's own format",
        ),
        (
            "a.json",
            r#"[{"image": "a.png", "annotations": [{"label": "x", "coordinates": {"x": 1}}]}]"#,
            "CreateML's format",
        ),
        (
            "export.json",
            r#"[{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.png"}}]"#,
            "Label Studio's own format",
        ),
        (
            "annotations.xml",
            "<?xml version=\"1.0\"?>\n<annotations><version>1.1</version></annotations>",
            "CVAT's own format: export COCO, VOC or YOLO",
        ),
    ];
    for (name, content, says) in cases {
        let folder = Folder::new();
        folder.picture("a.png", 64, 48);
        let file = folder.file(name, content);
        let message = folder.read().unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains(says),
            "{message}"
        );
        if content.starts_with('{') {
            let message = read(&file, &ReadOptions::default())
                .unwrap_err()
                .to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}

/// Its images have no `file_name`.
#[test]
fn pictures_of_lvis_go_by_their_address() {
    let folder = Folder::new();
    for name in ["train2017/a.png", "val2017/a.png"] {
        folder.picture(name, 64, 48);
    }
    let labels = json!({
        "images": [{"id": 7, "coco_url": "http://images.cocodataset.org/val2017/a.png"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20]}],
        "categories": [{"id": 1, "name": "RBC"}],
    });
    folder.file("annotations/lvis.json", labels.to_string());
    let dataset = clean_folder(&folder);
    assert_eq!(parts(&folder, &dataset), [part("lvis", &["val2017/a.png"])]);
}

/// Boxes of less than a pixel were trained on.
#[test]
fn shares_in_the_place_of_pixels_are_refused() {
    let coco = |bbox: [f64; 4]| {
        json!({
            "images": [{"id": 7, "file_name": "a.png"}],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": bbox}],
            "categories": [{"id": 1, "name": "RBC"}],
        })
        .to_string()
    };
    let xml = |edges: [&str; 4]| voc_xml(&[("RBC", edges)]);
    let cases = [
        ("train.json", coco([0.1, 0.2, 0.5, 0.5]), true),
        ("Annotations/a.xml", xml(["0.25", "0", "1", "0.5"]), true),
        ("train.json", coco([0.0, 0.0, 1.0, 1.0]), false),
        ("train.json", coco([0.1, 0.2, 0.5, 1.5]), false),
    ];
    for (name, content, is_refused) in cases {
        let folder = Folder::new();
        folder.picture("a.png", 64, 48);
        let file = folder.file(name, content);
        match folder.read() {
            Ok(reading) => assert!(!is_refused && told(&reading).is_empty()),
            Err(error) => {
                let message = error.to_string();
                let named = message.starts_with(&file.display().to_string());
                assert!(is_refused && named, "{message}");
                assert!(message.contains("expected pixels"), "{message}");
            }
        }
    }
}

#[test]
fn one_class_spelt_in_several_ways_is_remarked() {
    for [first, second] in [
        ["car", "Car"],
        ["blood cell", "blood_cell"],
        ["caf\u{e9}", "cafe\u{301}"],
    ] {
        let folder = Folder::new();
        folder.picture("a.png", 64, 48);
        let boxes = [["1", "2", "33", "40"], ["5", "2", "33", "40"]];
        let objects = [first, second, "tram"]
            .into_iter()
            .zip(boxes.into_iter().cycle());
        folder.file("a.xml", voc_xml(&objects.collect::<Vec<_>>()));
        let reading = folder.read().unwrap();
        let kinds: Vec<Kind> = told(&reading).into_iter().map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, [Kind::SimilarClasses], "{first}, {second}");
        assert_eq!(reading.dataset.class_names.len(), 4);
    }
}

/// They were taken for those of the model's names from the background on, so that each was one too low.
#[test]
fn classes_without_names_are_those_of_the_model_in_order() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("labels/a.txt", LINE);
    let names = ["__background__", "RBC", "WBC"].map(String::from);
    for skipped in [0, 1] {
        let options = ReadOptions {
            class_names: Some(names[skipped..].to_vec()),
            ..ReadOptions::default()
        };
        let reading = read(folder.path(), &options).unwrap();
        assert_eq!(told(&reading)[0].0, Kind::UnnamedClasses);
        let says = "the classes 0, 1, ... are taken for RBC, WBC";
        let notes = reading.problems.notes().unwrap();
        assert!(notes.contains(says), "{notes}");
        let dataset = reading.accept(false).unwrap();
        assert_eq!(dataset.class_names, names);
        assert_eq!(dataset.samples[0].instances.labels, [1]);
    }
}

/// Which it was went by the order in which the system listed them.
#[test]
fn of_two_pictures_of_one_stem_the_labels_name_theirs() {
    for filename in ["a.jpg", "a.png", "C:\\set\\a.jpg"] {
        let folder = Folder::new();
        folder.picture("JPEGImages/a.jpg", 64, 48);
        folder.picture("JPEGImages/a.png", 64, 48);
        let xml = voc_xml(&[("RBC", ["1", "2", "33", "40"])]);
        let named = format!("<annotation><filename>{filename}</filename>");
        folder.file("Annotations/a.xml", xml.replace("<annotation>", &named));
        let found = boxes_of(&clean_folder(&folder));
        assert!(
            filename.ends_with(&found[0].0),
            "{filename}: {}",
            found[0].0
        );
    }
}

/// XML with a document type was refused, which Python reads.
#[test]
fn document_types_are_passed_over() {
    let folder = Folder::new();
    folder.picture("a.png", 64, 48);
    let xml = voc_xml(&[("RBC", ["1", "2", "33", "40"])]);
    let text = format!("<?xml version=\"1.0\"?>\n<!DOCTYPE annotation SYSTEM \"voc.dtd\">\n{xml}");
    folder.file("a.xml", text);
    assert_eq!(clean_folder(&folder).boxes(), 1);
    let entity = format!("<!DOCTYPE a [<!ENTITY b \"{}\">]>\n{xml}", "c".repeat(99));
    folder.file("a.xml", entity);
    assert_eq!(told(&folder.read().unwrap())[0].0, Kind::BrokenLabels);
}

/// Pictures in folders that are links were left out in silence.
#[cfg(unix)]
#[test]
fn folders_behind_links_are_looked_into_once() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    for name in ["images/day1/a", "elsewhere/b"] {
        folder.picture(&format!("{name}.png"), 64, 48);
    }
    for name in ["day1/a", "day2/b"] {
        folder.file(&format!("labels/{name}.txt"), LINE);
    }
    folder.file("data.yaml", "train: images\nnames: [RBC]\n");
    let place = |name: &str| folder.path().join(name);
    symlink("../elsewhere", place("images/day2")).unwrap();
    // In circles, and to what is there anyway.
    symlink("..", place("images/day1/all")).unwrap();
    symlink("day1", place("images/again")).unwrap();
    let pictures = ["images/day1/a.png", "images/day2/b.png"];
    let dataset = clean_folder(&folder);
    assert_eq!(parts(&folder, &dataset), [part("train", &pictures)]);
    fs::remove_file(place("images/day2")).unwrap();
    assert_eq!(folder.read().unwrap().dataset.samples.len(), 1);
}

/// Stars in the script that ultralytics' own files download their data with were taken for aliases, and the file for too
/// deeply nested.
#[test]
fn scripts_in_a_data_yaml_are_passed_over() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("labels/a.txt", LINE);
    let script = "  boxes[:, [0, 2]] *= *sizes, x *w  # **\n".repeat(9);
    let head = "train: images\nnames: [RBC]\n";
    folder.file("data.yaml", format!("{head}download: |\n{script}"));
    assert_eq!(clean_folder(&folder).boxes(), 1);
    let bomb = "a: &a [x, x]\n".to_string() + &"b: [*a, *a]\n".repeat(9);
    folder.file("data.yaml", format!("{head}{bomb}"));
    let message = folder.read().unwrap_err().to_string();
    assert!(message.contains("too deeply nested"), "{message}");
}

/// Its `data.yaml` was not looked at, so that there were no class names.
#[test]
fn the_folder_above_a_yolo_set() {
    for above in ["cells", "exports/cells"] {
        let folder = Folder::new();
        folder.picture(&format!("{above}/images/a.png"), 64, 48);
        folder.file(&format!("{above}/labels/a.txt"), LINE);
        folder.file(
            &format!("{above}/data.yaml"),
            "train: images\nnames: [RBC]\n",
        );
        assert_eq!(clean_folder(&folder).class_names[1], "RBC", "{above}");
    }
}

/// Which of them is right can't be told: one name too many shifts all behind it.
#[test]
fn as_many_names_as_classes() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("labels/a.txt", LINE);
    for (nc, is_right) in [("1", false), ("2", true), ("'2'", true), ("3", false)] {
        let text = format!("train: images\nnc: {nc}\nnames: [RBC, WBC]\n");
        folder.file("data.yaml", text);
        match folder.read() {
            Ok(_) => assert!(is_right, "{nc}"),
            Err(error) => {
                let says = format!("data.yaml: `nc` is {nc}, but `names` has 2");
                assert!(!is_right && error.to_string().contains(&says), "{error}");
            }
        }
    }
}

/// They were said to be 0 numbers.
#[test]
fn numbers_with_commas_between_them_are_named() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.file("labels/a.txt", "0,.5,.5,.2,.2\n");
    folder.file("classes.txt", "RBC\n");
    let problems = folder.read().unwrap().problems.to_string();
    assert!(problems.contains("with commas between them"), "{problems}");
}
