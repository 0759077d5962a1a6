//! Two-stage object detection in pure Rust on [Burn](https://burn.dev): Faster, Mask and Keypoint R-CNN
//! with torchvision's weights, torchvision's names and torchvision's numbers.
//!
//! ```
//! use rcnn_burn::prelude::*;
//!
//! # std::env::set_current_dir("../../assets")?;
//! # #[cfg(feature = "bundled")] {
//! let device = Default::default();
//! // Or a file of torchvision's, or the name of published weights: `COCO_V1`.
//! let model = rcnn_burn::load::<Flex>("blood-cells", &device)?;
//! let photo = open_rgb("blood-cells.jpg")?;
//! let found = model.detect(&[to_tensor(&photo, &device)])?;
//! for object in found[0].iter().filter(|object| object.score > 0.9) {
//!     println!("{} at {:?}: {:.2}", model.class_names[object.label], object.bbox, object.score);
//! }
//! # assert!(found[0].iter().any(|object| object.score > 0.9));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where things are
//!
//! | to | see |
//! |---|---|
//! | open, convert and write weights | [`load`], [`weights`] |
//! | describe a detector, and make one with random weights | [`FasterRcnnConfig`] |
//! | detect; run each stage by itself | [`FasterRcnn`], [`rpn`], [`roi`], [`ops`] |
//! | use or write a backbone | [`backbone`] |
//! | freeze and thaw parameters | [`freeze`](mod@freeze) |
//! | remove and replace layers; count operations | [`surgery`], [`cost`] |
//! | read, check and augment data; train; evaluate | `data`, `train`, `eval`, behind features |
//! | find out which layers matter | `analyze`, behind a feature |
//! | write ONNX files | [`export`] |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `flex` | yes | Burn's CPU backend with this project's kernels: [`Flex`] |
//! | `ndarray`, `wgpu`, `cuda` | | other backends; `vulkan` and `metal` are `wgpu` with other shaders |
//! | `autotune` | yes | the choice of the fastest kernel on GPUs, at run time |
//! | `image` | yes | picture files to tensors: [`image`](mod@image) |
//! | `weights` | yes | checkpoints: [`weights`], [`load`] |
//! | `download` | yes | published weights by name |
//! | `record` | yes | recorded forward passes: [`cost`] |
//! | `export` | yes | ONNX: [`export`] |
//! | `bundled` | | the detector of blood cells that the examples here use, 2.4 MiB |
//! | `data`, `eval` | | data sets; COCO's average precision |
//! | `train` | | training runs, with both of these |
//! | `analyze` | | cost and merit of each layer |
//!
//! # Backends
//!
//! The model is generic over a Burn backend that implements [`ops::DetectionBackend`]: [`Flex`], `NdArray`,
//! `Wgpu`, `Cuda`, and [`Autodiff`](burn::backend::Autodiff) of each for training. Without `image` and
//! `weights` nothing here needs threads or a file system.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use burn;

#[cfg(feature = "analyze")]
#[doc(inline)]
pub use rcnn_analyze as analyze;
#[cfg(feature = "data")]
#[doc(inline)]
pub use rcnn_data as data;
#[cfg(feature = "eval")]
#[doc(inline)]
pub use rcnn_eval as eval;
#[cfg(feature = "train")]
#[doc(inline)]
pub use rcnn_train as train;

#[cfg(feature = "bundled")]
#[doc(inline)]
pub use rcnn_core::bundled;
#[cfg(feature = "record")]
#[doc(inline)]
pub use rcnn_core::cost;
#[cfg(feature = "flex")]
#[doc(inline)]
pub use rcnn_core::cpu;
#[cfg(feature = "export")]
#[doc(inline)]
pub use rcnn_core::export;
#[cfg(feature = "image")]
#[doc(inline)]
pub use rcnn_core::image;
#[doc(inline)]
pub use rcnn_core::{
    BBox, Backend, ConfigError, DetectError, FasterRcnn, FasterRcnnConfig, FloatDType,
    GeneralizedRcnnTransform, ImageList, Instance, Instances, InvalidField, Losses,
    MAX_BATCH_PIXELS, PrecisionError, Size, StandardFasterRcnn, Tensor, UnknownModel, backbone,
    freeze, ops, roi, rpn, surgery, types,
};
#[cfg(feature = "weights")]
#[doc(inline)]
pub use rcnn_core::{LoadError, load, weights};

#[cfg(feature = "cuda")]
pub use rcnn_core::{Cuda, CudaDevice};
#[cfg(feature = "flex")]
pub use rcnn_core::{Flex, FlexDevice};
#[cfg(feature = "ndarray")]
pub use rcnn_core::{NdArray, NdArrayDevice};
#[cfg(feature = "wgpu")]
pub use rcnn_core::{Wgpu, WgpuDevice};

/// What most programs use.
pub mod prelude {
    #[cfg(feature = "flex")]
    pub use crate::Flex;
    #[cfg(feature = "image")]
    pub use crate::image::{open_rgb, to_tensor};
    #[cfg(feature = "weights")]
    pub use crate::weights::Weights;
    pub use crate::{
        Backend, FasterRcnn, FasterRcnnConfig, Instance, Instances, Losses, Size,
        StandardFasterRcnn, Tensor,
    };
}

/// The blocks of README.
#[cfg(all(doctest, feature = "bundled", feature = "train"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
