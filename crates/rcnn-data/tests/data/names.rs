//! Names of pictures as other machines and systems write them.

#[cfg(unix)]
use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use rcnn_data::ProblemKind as Kind;
#[cfg(unix)]
use rcnn_data::check::{AnchorSpec, check};

use crate::common::{Folder, told, voc_xml};
use crate::layouts::{clean_folder, coco, part, parts};

#[test]
fn names_of_pictures_from_other_machines() {
    for name in [
        "images\\b c.png",
        "..\\..\\label-studio\\media\\upload\\4\\b c.png",
        "C:\\data\\images\\b c.png",
        "/data/upload/1/b c.png",
        "images/b%20c.png",
        "b%20c.png",
        "/data/local-files/?d=images/b%20c.png",
        "https://a.org/data/local-files/?d=images/b%20c.png",
        "https://a.org/images/b%20c.png?raw=true",
        "elsewhere/b c.png",
    ] {
        let folder = Folder::new();
        folder.picture("images/b c.png", 64, 48);
        folder.file("result.json", coco(&[name]));
        let dataset = clean_folder(&folder);
        assert_eq!(
            parts(&folder, &dataset),
            [part("result", &["images/b c.png"])],
            "{name}"
        );
    }
    // A percent sign may be meant.
    let folder = Folder::new();
    folder.picture("b%20c.png", 64, 48);
    folder.picture("b c.png", 64, 48);
    folder.file("result.json", coco(&["b%20c.png"]));
    assert_eq!(
        parts(&folder, &clean_folder(&folder)),
        [part("result", &["b%20c.png"])]
    );
}

#[test]
fn names_in_another_case_than_the_file_on_disk() {
    let folder = Folder::new();
    folder.picture("images/a.png", 64, 48);
    folder.picture("images/B.PNG", 64, 48);
    folder.picture("images/b.png", 64, 48);
    folder.file("result.json", coco(&["A.PNG", "b.png"]));
    assert_eq!(
        parts(&folder, &clean_folder(&folder)),
        [part("result", &["images/a.png", "images/b.png"])]
    );
    // It can't be both.
    folder.file("result.json", coco(&["a.png", "A.png"]));
    let reading = folder.read().unwrap();
    let missing = (Kind::MissingImage, "A.png".to_string(), None);
    assert_eq!(told(&reading), [missing]);
}

/// macOS writes `é` as `e` and an accent; Windows takes `A` for `a`.
#[test]
fn names_that_other_systems_take_for_the_same() {
    let (composed, apart) = ("caf\u{e9}", "cafe\u{301}");
    let folder = Folder::new();
    folder.picture(&format!("images/{apart}.png"), 64, 48);
    folder.file("result.json", coco(&[&format!("images/{composed}.png")]));
    assert_eq!(
        parts(&folder, &clean_folder(&folder)),
        [part("result", &[&format!("images/{apart}.png")])]
    );

    let xml = voc_xml(&[("RBC", ["1", "1", "9", "9"])]);
    let folder = Folder::new();
    folder.picture(&format!("JPEGImages/{apart}.png"), 64, 48);
    folder.picture("JPEGImages/IMG_1.png", 64, 48);
    folder.file(&format!("Annotations/{composed}.xml"), &xml);
    folder.file("Annotations/img_1.xml", &xml);
    folder.file("ImageSets/Main/train.txt", format!("{composed}\nImg_1\n"));
    let dataset = clean_folder(&folder);
    assert_eq!(dataset.boxes(), 2);
    let images = ["JPEGImages/IMG_1.png", &format!("JPEGImages/{apart}.png")];
    let mut listed = parts(&folder, &dataset);
    listed[0].1.sort();
    assert_eq!(listed, [part("train", &images)]);

    for labels in ["labels", "images"] {
        let folder = Folder::new();
        folder.picture(&format!("images/{apart}.png"), 64, 48);
        folder.picture("images/IMG_1.png", 64, 48);
        folder.file(&format!("{labels}/{composed}.txt"), "0 .5 .5 .2 .2\n");
        folder.file(&format!("{labels}/img_1.txt"), "0 .5 .5 .2 .2\n");
        folder.file("classes.txt", "RBC\n");
        assert_eq!(clean_folder(&folder).boxes(), 2, "{labels}");
    }
}

/// A base name alone may be that of another picture.
#[test]
fn base_names_that_several_pictures_have() {
    let folder = Folder::new();
    folder.picture("set/1/a.png", 64, 48);
    folder.picture("set/2/a.png", 64, 48);
    folder.file(
        "train.json",
        coco(&["/x/1/a.png", "/x/2/a.png", "/x/3/a.png", "/x/b.png"]),
    );
    let reading = folder.read().unwrap();
    let missing = |name: &str| (Kind::MissingImage, name.to_string(), None);
    assert_eq!(told(&reading), [missing("a.png"), missing("b.png")]);
    let expected = [part("train", &["set/1/a.png", "set/2/a.png"])];
    assert_eq!(parts(&folder, &reading.dataset), expected);
    let message = reading.problems.to_string();
    assert!(
        message.contains("train.json names it; looked in"),
        "{message}"
    );

    // The picture of another split is not this one's.
    let folder = Folder::new();
    folder.picture("pictures/val/a.png", 64, 48);
    folder.file("annotations/train.json", coco(&["a.png"]));
    folder.file("annotations/val.json", coco(&["a.png"]));
    let reading = folder.read().unwrap();
    assert_eq!(told(&reading), [missing("a.png")]);
    assert_eq!(reading.dataset.splits["train"], [] as [usize; 0]);
}

/// As a zip of another system leaves them, here in GBK. Of two that are one text in UTF-8, the first was lost.
#[cfg(unix)]
#[test]
fn names_in_another_encoding_are_kept_apart() {
    let folder = Folder::new();
    for name in [b"\xb9\xb7", b"\xc4\xf1"] {
        let named = |ending: &str| {
            let name = [&name[..], ending.as_bytes()].concat();
            folder.path().join(OsStr::from_bytes(&name))
        };
        fs::rename(folder.picture("a.png", 64, 48), named(".png")).unwrap();
        let object = ("a", ["1", "2", "33", "40"]);
        fs::write(named(".xml"), voc_xml(&[object])).unwrap();
    }
    let dataset = clean_folder(&folder);
    assert_eq!((dataset.samples.len(), dataset.boxes()), (2, 2));
    fs::write(folder.path().join(OsStr::from_bytes(b"\xca.xml")), "").unwrap();
    let report = check(&folder.read().unwrap(), &AnchorSpec::default(), 0);
    let json = serde_json::to_value(&report).unwrap();
    let file = json["problems"][0]["file"].as_str().unwrap();
    assert!(file.ends_with("/\u{fffd}.xml"), "{file}");
}
