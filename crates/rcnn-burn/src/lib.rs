//! Two-stage object detection in pure Rust on [Burn](https://burn.dev): Faster, Mask and Keypoint R-CNN
//! with torchvision's weights, torchvision's names and torchvision's numbers.
//!
//! ```
//! use rcnn_burn::prelude::*;
//!
//! # std::env::set_current_dir("../../assets")?;
//! # #[cfg(feature = "bundled")] {
//! let device = Default::default();
//! // Or a torchvision checkpoint, or the name of published weights such as `COCO_V1`.
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
//! | detect in tiles and several views of large pictures | [`tile`] |
//! | read, check and augment data; train; evaluate | `data`, `train`, `eval`, behind features |
//! | measure what each layer costs and contributes | `analyze`, behind a feature |
//! | remove the least important channels | `prune`, behind a feature |
//! | read and write videos, track objects | `video`, `track`, behind a feature |
//! | write ONNX files | [`export`] |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `flex` | yes | Burn's CPU backend with this project's kernels: [`Flex`] |
//! | `ndarray`, `wgpu`, `cuda` | | other backends; `vulkan` and `metal` are `wgpu` with other shaders |
//! | `autotune` | yes | selection of the fastest GPU kernels at run time |
//! | `image` | yes | picture files to tensors, and drawing: [`image`](mod@image) |
//! | `weights` | yes | checkpoints: [`weights`], [`load`] |
//! | `download` | yes | published weights by name |
//! | `record` | yes | recorded forward passes: [`cost`] |
//! | `export` | yes | ONNX: [`export`] |
//! | `bundled` | | the blood cell detector that the examples here use, 2.4 MiB |
//! | `ort` | | comparison of exported files, in ONNX Runtime, with the model |
//! | `data`, `eval` | | data sets; COCO's average precision |
//! | `train` | | training runs; includes `data` and `eval` |
//! | `analyze` | | cost and contribution of each layer |
//! | `prune` | | removal of channels |
//! | `video` | | frames from and to pipes, and tracking: `video`, `track` |
//!
//! # A tour
//!
//! Layers are frozen by a list of rules, of which the last that matches decides ([`freeze`](mod@freeze)). Layers can be removed
//! and replaced; weights that still fit are kept ([`surgery`]). Costs are counted on a recorded forward pass ([`cost`]). Any
//! model can be saved for torchvision, for this library and as ONNX ([`weights`], [`export`]):
//!
//! ```
//! use rcnn_burn::export::{OnnxOptions, onnx};
//! use rcnn_burn::freeze::{FreezeState, freeze};
//! use rcnn_burn::prelude::*;
//! use rcnn_burn::weights::Precision;
//!
//! # #[cfg(feature = "bundled")] {
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! let device = Default::default();
//! let weights = rcnn_burn::bundled::blood_cells()?;
//!
//! // Freeze the backbone, except its last stage.
//! let model = weights.load::<Autodiff<Flex>>(&device)?;
//! let model = freeze(model, &["backbone", "thaw layer2"])?;
//! let frozen = FreezeState::from_model(&model);
//! assert!(frozen.frozen().names.contains(&"backbone.body.conv1.weight"));
//!
//! // Remove a residual block, and replace the box head by a new one with a single layer.
//! let operations = ["drop-block layer2.1".parse()?, "box-head fc:64".parse()?];
//! let (small, report) = weights.with_surgery::<Flex>(&operations, &device)?;
//! println!("{report}");
//!
//! // What that saves on a picture of 480x640.
//! let size = Size { height: 480, width: 640 };
//! let costs = |weights: &Weights| weights.config.costs(size).map(|costs| costs.total());
//! assert!(costs(&small)?.macs < costs(&weights)?.macs);
//!
//! small.write_burnpack("small.bpk", Precision::F16)?;
//! small.write_safetensors("for-torchvision.safetensors")?;
//! onnx(&small.load::<Flex>(&device)?, &OnnxOptions::default(), "small.onnx".as_ref())?;
//! assert_eq!(Weights::open("small.bpk")?.config, small.config);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A hook sees the output of each layer, like PyTorch's forward hooks:
//!
//! ```
//! use rcnn_burn::ops::LayerOutput;
//! use rcnn_burn::prelude::*;
//!
//! let device = Default::default();
//! let mut config = FasterRcnnConfig::named("resnet18_fpn", 2)?;
//! config.transform.min_size = vec![64];
//! # let config = config.with_surgery(&["box-head fc:16".parse()?])?;
//! let model = config.init::<Flex>(&device)?;
//! let image = Tensor::zeros([3, 64, 64], &device);
//! let mut shapes = Vec::new();
//! let mut hook = |name: &str, output: LayerOutput<Flex>| shapes.push((name.to_string(), output.dims()));
//! model.detect_with_hook(&[image], &mut hook)?;
//! assert!(shapes.contains(&("backbone.body.layer4.1".to_string(), vec![1, 512, 2, 2])));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Backends
//!
//! The model is generic over a Burn backend that implements [`ops::DetectionBackend`]: [`Flex`], `NdArray`,
//! `Wgpu`, `Cuda`, and, for training, [`Autodiff`](burn::backend::Autodiff) over each of them. Without the features
//! `image` and `weights`, nothing here needs threads or a file system.
//!
//! # Other crates
//!
//! [`burn`], [`rand`] and [`serde_json`] stand in signatures here, and are re-exported so that versions agree:
//! `use rcnn_burn::burn;` is enough for `#[derive(Module)]`. Pictures are [`image::RgbImage`].

#![cfg_attr(docsrs, feature(doc_cfg))]

pub use {burn, rand, serde_json};

#[cfg(feature = "analyze")]
#[doc(inline)]
pub use rcnn_analyze as analyze;
#[cfg(feature = "data")]
#[doc(inline)]
pub use rcnn_data as data;
#[cfg(feature = "eval")]
#[doc(inline)]
pub use rcnn_eval as eval;
#[cfg(feature = "prune")]
#[doc(inline)]
pub use rcnn_prune as prune;
#[cfg(feature = "video")]
#[doc(inline)]
pub use rcnn_track as track;
#[cfg(feature = "train")]
#[doc(inline)]
pub use rcnn_train as train;
#[cfg(feature = "video")]
#[doc(inline)]
pub use rcnn_video as video;

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
    freeze, ops, roi, rpn, surgery, tile, types,
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

/// The names that most programs need.
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
    pub use burn::backend::Autodiff;
}

/// The programs of README and of the guide.
#[cfg(all(
    doctest,
    feature = "bundled",
    feature = "prune",
    feature = "train",
    feature = "video"
))]
mod guide {
    macro_rules! pages {
        ($($page:ident $file:literal)*) => {$(
            #[doc = include_str!(concat!("../../../", $file))]
            struct $page;
        )*};
    }
    pages! {
        Readme "README.md"
        Backbones "docs/backbones.md"
        Data "docs/data.md"
        Freezing "docs/freezing.md"
        FromTensorflow "docs/from-tensorflow.md"
        LargePictures "docs/large-pictures.md"
        MasksAndKeypoints "docs/masks-and-keypoints.md"
        Pruning "docs/pruning.md"
        Training "docs/training.md"
        Video "docs/video.md"
    }
}
