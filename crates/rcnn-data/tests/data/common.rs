//! Tiny data sets in temporary folders.

use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use rcnn_data::{DataError, Dataset, Problem, ProblemKind, ReadOptions, Reading};
use tempfile::TempDir;

/// A folder that is removed at the end of a test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A picture of its own colour.
    pub(crate) fn picture(&self, name: &str, width: u32, height: u32) -> PathBuf {
        let path = self.file(name, "");
        let shade = name
            .bytes()
            .fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        let picture = RgbImage::from_pixel(width, height, Rgb([shade, 99, 255 - shade]));
        fs::write(&path, rcnn_image::encode(&path, &picture).unwrap()).unwrap();
        path
    }

    pub(crate) fn read(&self) -> Result<Reading, DataError> {
        rcnn_data::read(self.path(), &ReadOptions::default())
    }

    pub(crate) fn read_split(&self, split: &str) -> Result<Reading, DataError> {
        let split = Some(split.to_string());
        rcnn_data::read(
            self.path(),
            &ReadOptions {
                split,
                ..ReadOptions::default()
            },
        )
    }
}

/// An annotation of VOC for a picture of 64x48.
pub(crate) fn voc_xml(objects: &[(&str, [&str; 4])]) -> String {
    let objects = objects.iter().map(|(name, [x1, y1, x2, y2])| {
        format!(
            "<object><name>{name}</name><part><name>head</name></part><bndbox><xmin>{x1}</xmin>\
             <ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        )
    });
    let size = "<size><width>64</width><height>48</height><depth>3</depth></size>";
    format!(
        "<annotation>{size}\n{}</annotation>",
        objects.collect::<String>()
    )
}

/// Cells of two kinds on three pictures of 64x48, in the splits train (2), val (1) and trainval.
pub(crate) fn voc() -> Folder {
    let folder = Folder::new();
    for name in ["a", "b", "c"] {
        folder.picture(&format!("JPEGImages/{name}.png"), 64, 48);
    }
    let boxes = [
        ("WBC", ["1", "2", "33.5", "40"]),
        ("RBC", ["40", "4", "60", "20"]),
    ];
    folder.file("Annotations/a.xml", voc_xml(&boxes));
    folder.file("Annotations/b.xml", voc_xml(&[]));
    folder.file(
        "Annotations/c.xml",
        voc_xml(&[("RBC", ["0", "0", "64", "48"])]),
    );
    folder.file("ImageSets/Main/train.txt", "a\nb\n");
    folder.file("ImageSets/Main/val.txt", "c\r\n");
    folder.file("ImageSets/Main/trainval.txt", "a\nb\nc\n");
    folder.file("ImageSets/Main/RBC_train.txt", "a  1\nb -1\n");
    folder
}

/// The kinds, file names and boxes of problems.
pub(crate) fn told(reading: &Reading) -> Vec<(ProblemKind, String, Option<u64>)> {
    let tell = |p: &Problem| {
        let file = p.file.file_name().unwrap().to_string_lossy();
        (p.kind, file.into_owned(), p.object)
    };
    reading.problems.iter().map(tell).collect()
}

/// The file names, boxes and labels of images.
pub(crate) fn boxes_of(dataset: &Dataset) -> Vec<(String, Vec<[f32; 4]>, Vec<usize>)> {
    let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let samples = dataset.samples.iter();
    samples
        .map(|s| {
            (
                name(&s.image),
                s.instances.boxes.clone(),
                s.instances.labels.clone(),
            )
        })
        .collect()
}
