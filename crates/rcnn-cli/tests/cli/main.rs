//! The `rcnn` command from outside: what it prints, and that nothing makes it panic.

mod analyze;
mod config;
mod data;
mod datasets;
mod detect;
mod devices;
mod eval;
mod export;
mod faults;
mod models;
#[cfg(unix)]
mod names;
mod overwrite;
mod prune;
#[cfg(feature = "serve")]
mod serve;
mod shapes;
mod simd;
mod tiles;
mod train;
mod video;
mod weights;

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use image::{Rgb, RgbImage};
use rcnn_burn::backbone::{ResNetArch, ResNetFpnConfig};
use rcnn_burn::roi::BoxHeadConfig;
use rcnn_burn::weights::{Precision, Weights};
use rcnn_burn::{FasterRcnnConfig, Flex};
use rcnn_files::TemporaryFolder;
use serde_json::Value;

/// A folder with a small model of random weights and a few pictures, made once.
static FOLDER: LazyLock<TemporaryFolder> = LazyLock::new(|| {
    // A static is never dropped: the next run removes the folder, which may have a gigabyte.
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = TemporaryFolder::create_in(parent).expect("a folder");
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        returned_layers: vec![1],
        out_channels: 8,
        ..Default::default()
    };
    let mut config = FasterRcnnConfig::new(backbone, 4);
    config.rpn.anchor_generator.sizes = vec![vec![32.0], vec![64.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![0.5, 1.0, 2.0]; 2];
    config.rpn.post_nms_top_n_test = 50;
    config.roi_heads.box_head = BoxHeadConfig::TwoMlp {
        representation_size: 16,
    };
    config.roi_heads.detections_per_img = 10;
    config.transform.min_size = vec![64];
    config.transform.max_size = 128;
    config.class_names = ["__background__", "RBC", "WBC", "Platelets"]
        .map(String::from)
        .into();
    let model = config.init::<Flex>(&Default::default()).expect("a model");
    let weights = Weights::from_model(&model);
    weights
        .write_burnpack(folder.path().join("model.bpk"), Precision::F32)
        .expect("written");

    let picture = |width, height| {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8])
        })
    };
    fs::create_dir(folder.path().join("pictures")).expect("a folder");
    picture(80, 60)
        .save(folder.path().join("pictures/a.png"))
        .expect("a picture");
    fs::write(folder.path().join("pictures/b.jpg"), jpeg(&picture(50, 70))).expect("a picture");
    picture(1, 1)
        .save(folder.path().join("dot.png"))
        .expect("a picture");
    picture(3000, 2)
        .save(folder.path().join("line.png"))
        .expect("a picture");
    let jpeg = jpeg(&picture(80, 60));
    fs::write(folder.path().join("cut.jpg"), &jpeg[..jpeg.len() / 2]).expect("a file");
    fs::write(folder.path().join("empty.jpg"), "").expect("a file");
    fs::write(folder.path().join("text.jpg"), "this is no picture").expect("a file");
    fs::create_dir(folder.path().join("nothing")).expect("a folder");
    let model = fs::read(folder.path().join("model.bpk")).expect("a model");
    fs::write(folder.path().join("cut.bpk"), &model[..model.len() / 2]).expect("a file");
    folder
});

/// A JPEG that `rcnn` did not write.
fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let rgb = libjpeg_turbo_rs::PixelFormat::Rgb;
    libjpeg_turbo_rs::Encoder::new(picture, width, height, rgb)
        .encode()
        .expect("a picture")
}

fn path(name: impl AsRef<Path>) -> PathBuf {
    FOLDER.path().join(name)
}

/// Runs the command in the folder.
fn rcnn<S: AsRef<OsStr> + Debug>(arguments: &[S]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_rcnn"))
        .args(arguments)
        .current_dir(FOLDER.path())
        .output()
        .expect("the command starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    output
}

fn detect(arguments: &[&str]) -> Output {
    rcnn(&[&["detect", "--weights", "model.bpk"], arguments].concat())
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "failed: {errors}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("JSON")
}

/// Asserts that the command failed with this status and said this.
fn assert_fails(output: &Output, code: i32, says: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(says), "`{says}` is not in: {errors}");
}
