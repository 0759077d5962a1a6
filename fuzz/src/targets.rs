//! What reads files, each as a function of bytes.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use rcnn_core::image::{Animation, StripReader, open_rgb, upright_size};
use rcnn_core::types::parse_class_names;
use rcnn_core::weights::{self, Checkpoint, Weights};
use rcnn_core::{FasterRcnnConfig, Flex, Size, freeze, surgery};
use rcnn_data::check::{AnchorSpec, check};
use rcnn_data::{Format, ReadOptions};
use rcnn_train::TrainConfig;
use rcnn_video::{FrameReader, StreamFormat};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::{edits, http, tensorflow};

/// A reader of files.
pub struct Target {
    /// Its name, and that of its folder in `corpus`.
    pub name: &'static str,
    /// A folder of the workspace with more seeds.
    pub fixtures: Option<&'static str>,
    /// Reads an input. It panics where the reader does, and where what it accepts makes no sense.
    pub run: fn(&Scratch, &[u8]),
}

/// Everything that reads files. A new reader is one more line here, and a folder of `corpus`.
pub static TARGETS: &[Target] = &[
    target(
        "checkpoint",
        Some("weights-import/tests/fixtures"),
        |scratch, bytes| {
            checkpoint(&scratch.write("checkpoint", bytes));
        },
    ),
    target("pickle", None, pickle),
    target("picture", Some("crates/rcnn-image/tests/images"), picture),
    target("video", Some("crates/rcnn-video/tests/files"), video),
    target("coco", None, |scratch, bytes| {
        scratch.labels("coco/train.json", bytes, Format::Coco);
    }),
    target("voc", None, |scratch, bytes| {
        scratch.labels("voc/Annotations/a.xml", bytes, Format::Voc);
    }),
    target("yolo_labels", None, |scratch, bytes| {
        scratch.labels("yolo/labels/a.txt", bytes, Format::Yolo);
    }),
    target("yolo_config", None, |scratch, bytes| {
        scratch.labels("yolo_config/data.yaml", bytes, Format::Yolo);
    }),
    target("detector_config", None, |_, bytes| {
        text(bytes, detector_config);
    }),
    target("train_config", None, |_, bytes| text(bytes, train_config)),
    target("detector_edits", None, |_, bytes| {
        detector_config(&edits::detector(bytes).to_string());
    }),
    target("train_edits", None, |_, bytes| {
        if let Ok(config) = serde_json::from_value::<TrainConfig>(edits::training(bytes)) {
            let _ = config.validate();
        }
    }),
    target("names", None, |_, bytes| text(bytes, names)),
    target("tensorflow_graph", None, |scratch, bytes| {
        checkpoint(&scratch.write("graph_checkpoint/frozen_inference_graph.pb", bytes));
    }),
    target("tensorflow_index", None, |scratch, bytes| {
        checkpoint(&scratch.write(
            "index_checkpoint/model.ckpt.index",
            &tensorflow::index(bytes),
        ));
    }),
    target("pipeline_config", None, |_, bytes| {
        text(bytes, |text| {
            if let Ok(config) = weights::pipeline_config(text) {
                let _ = config.validate();
            }
        });
    }),
    target("label_map", None, |_, bytes| {
        text(bytes, |text| {
            if let Ok(names) = weights::label_map(text, CLASSES) {
                assert_eq!(names.len(), CLASSES);
            }
        });
    }),
    target("onnx", None, |_, bytes| {
        let _ = rcnn_onnx::validate(bytes);
    }),
    target("http_body", None, |_, bytes| http::post(bytes)),
];

const fn target(
    name: &'static str,
    fixtures: Option<&'static str>,
    run: fn(&Scratch, &[u8]),
) -> Target {
    Target {
        name,
        fixtures,
        run,
    }
}

/// A folder that inputs are written into, with what they need beside them.
pub struct Scratch {
    /// Deep enough that paths with a few `..` stay within.
    folder: PathBuf,
    _root: TempDir,
}

impl Scratch {
    /// Makes the folder.
    ///
    /// # Panics
    /// When the system can't.
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("a/b/c/d");
        let scratch = Self {
            folder,
            _root: root,
        };
        let fixtures =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rcnn-image/tests/images");
        let picture = fs::read(fixtures.join("rgb.png")).expect("an image");
        for folder in [
            "coco",
            "voc/JPEGImages",
            "yolo/images",
            "yolo_config/images",
        ] {
            scratch.write(&format!("{folder}/a.png"), &picture);
        }
        scratch.write(
            "yolo/data.yaml",
            b"train: images\nnames: [x, y]\nkpt_shape: [2, 3]\n",
        );
        scratch.write(
            "yolo_config/labels/a.txt",
            b"0 .5 .5 .2 .2\n1 .1 .1 .2 .2 .3 .3\n",
        );
        scratch.write(
            "index_checkpoint/model.ckpt.data-00000-of-00001",
            tensorflow::DATA,
        );
        scratch
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        let folder = path.parent().expect("a folder");
        fs::create_dir_all(folder).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        path
    }

    /// Reads a data set that has these labels.
    fn labels(&self, name: &str, bytes: &[u8], format: Format) {
        self.write(name, bytes);
        let folder = name.split('/').next().expect("a name");
        let mut options = ReadOptions {
            format: Some(format),
            ..Default::default()
        };
        let root = self.folder.join(folder);
        if dataset(&root, &options) {
            options.clip = true;
            dataset(&root, &options);
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

fn text(bytes: &[u8], read: fn(&str)) {
    if let Ok(text) = str::from_utf8(bytes) {
        read(text);
    }
}

/// How many classes a label map is read for.
const CLASSES: usize = 4;

/// The most that is read of a checkpoint's tensors, in bytes: a view may repeat one number as often as it likes.
const MAX_TENSOR_BYTES: u64 = 1 << 20;

fn checkpoint(path: &Path) {
    let checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert!(error.to_string().contains("checkpoint"), "{error}");
            return;
        }
    };
    let mut bytes = 0u64;
    for (_, tensor) in checkpoint.iter() {
        bytes = bytes.saturating_add((tensor.num_elements() as u64).saturating_mul(8));
        if bytes <= MAX_TENSOR_BYTES {
            let _ = tensor.data();
        }
    }
    let Ok(weights) = Weights::from_checkpoint(&checkpoint) else {
        return;
    };
    // Whatever is recognised is a detector that can be described.
    weights.config.validate().expect("a valid configuration");
    if bytes <= MAX_TENSOR_BYTES {
        let _ = weights.load::<Flex>(&Default::default());
    }
}

/// The pickle of a PyTorch archive, which its checksum would hide from damage to the file.
fn pickle(scratch: &Scratch, bytes: &[u8]) {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut entry = |name: &str, content: &[u8]| {
        archive.start_file(name, options).expect("an entry");
        archive.write_all(content).expect("an entry");
    };
    entry("a/data.pkl", bytes);
    for storage in 0..4 {
        entry(&format!("a/data/{storage}"), &[1; 64]);
    }
    let archive = archive.finish().expect("an archive").into_inner();
    checkpoint(&scratch.write("checkpoint", &archive));
}

/// The most pixels that are decoded: an image of many has its reasons.
const MAX_PIXELS: usize = 1 << 18;

fn picture(scratch: &Scratch, bytes: &[u8]) {
    let path = scratch.write("picture", bytes);
    let Ok(size) = upright_size(&path) else {
        assert!(open_rgb(&path).is_err(), "pixels without a size");
        return;
    };
    if size.height.saturating_mul(size.width) > MAX_PIXELS {
        return;
    }
    frames(&path, size);
    let image = open_rgb(&path);
    if let Ok(image) = &image {
        let decoded = (image.width() as usize, image.height() as usize);
        assert_eq!(decoded, (size.width, size.height), "two sizes");
    }
    if let Ok(Some(mut strips)) = StripReader::open(&path) {
        let (width, height) = strips.size().dimensions();
        let rows = strips.window([0, height / 2, width, height]);
        if let (Ok(rows), Ok(image)) = (rows, image) {
            let start = 3 * width as usize * (height / 2) as usize;
            assert_eq!(
                rows.as_raw()[..],
                image.as_raw()[start..],
                "other pixels in parts"
            );
        }
    }
}

/// Frames that are looked at of one input.
const MAX_FRAMES: usize = 20;

fn frames(path: &Path, size: Size) {
    let Ok(Some(animation)) = Animation::open(path) else {
        return;
    };
    for (image, shown) in animation.take(MAX_FRAMES).flatten() {
        assert_eq!(Size::from_dimensions(image.dimensions()), size, "two sizes");
        assert!(!shown.is_zero(), "shown for no time");
    }
}

fn video(_: &Scratch, bytes: &[u8]) {
    let raw = StreamFormat::Rgb(Size::new(12, 16));
    for format in [StreamFormat::Y4m, StreamFormat::Mjpeg, raw] {
        let Ok(reader) = FrameReader::new(bytes, format) else {
            continue;
        };
        for (number, frame) in (0..).zip(reader.take(MAX_FRAMES)) {
            match frame {
                Ok(frame) => assert_eq!(frame.number, number),
                Err(error) => assert_eq!(error.frame, Some(number)),
            }
        }
    }
}

/// The most classes that are reported on.
const MAX_CLASSES: usize = 1000;

/// Whether there was anything to read.
fn dataset(root: &Path, options: &ReadOptions) -> bool {
    let Ok(reading) = rcnn_data::read(root, options) else {
        return false;
    };
    let classes = reading.dataset.class_names.len();
    // A number makes any number of classes, each of which is a line of the report.
    if classes <= MAX_CLASSES {
        let report = check(&reading, &AnchorSpec::default(), 0);
        assert!(!report.to_string().is_empty());
    }
    for sample in &reading.dataset.samples {
        for object in sample.instances.iter() {
            let [x1, y1, x2, y2] = object.bbox;
            assert!(
                (1..classes).contains(&object.label),
                "label {}",
                object.label
            );
            let is_box = x1 < x2 && y1 < y2 && object.bbox.iter().all(|edge| edge.is_finite());
            assert!(is_box, "{:?}", object.bbox);
            assert!(
                object.area.is_finite() && object.area >= 0.0,
                "area {}",
                object.area
            );
        }
    }
    true
}

fn detector_config(text: &str) {
    let Ok(config) = serde_json::from_str::<FasterRcnnConfig>(text) else {
        return;
    };
    if config.validate().is_ok() {
        let written = serde_json::to_string(&config).expect("JSON");
        let again: FasterRcnnConfig = serde_json::from_str(&written).expect("what was written");
        assert_eq!(serde_json::to_string(&again).expect("JSON"), written);
    }
}

fn train_config(text: &str) {
    if let Ok(config) = TrainConfig::from_toml(text) {
        let _ = config.validate();
    }
}

fn names(text: &str) {
    let classes = text.lines().count() + 1;
    if let Ok(names) = parse_class_names(text, classes) {
        assert_eq!(names.len(), classes);
    }
    let rules: Vec<&str> = text.lines().collect();
    let _ = freeze::parse(&rules);
    for line in rules {
        let _ = line.parse::<surgery::Operation>();
    }
}
