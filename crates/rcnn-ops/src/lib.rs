//! Detection operations for [Burn](https://burn.dev), with torchvision's behaviour.
//!
//! This is the bottom of rcnn-burn: what the network's stages need beyond Burn's own operations.
//! Boxes are `xyxy` in pixels throughout. What runs on the host (matching, sampling, Soft-NMS) works
//! on slices of [`BBox`]; what runs on the device works on tensors and goes through
//! [`DetectionBackend`], whose default bodies are composed of Burn operations or run on the host, so
//! that any backend serves with one empty `impl`, and a backend with a kernel of its own overrides a
//! method.
//!
//! ```
//! # mod rcnn_burn { pub use rcnn_ops as ops; }
//! use rcnn_burn::ops::{box_iou, nms};
//!
//! let boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [20.0, 20.0, 30.0, 30.0]];
//! assert_eq!(box_iou(&boxes[0], &boxes[1]), 0.8);
//! assert_eq!(nms(&boxes, &[0.7, 0.9, 0.8], 0.5), [1, 2]);
//! ```

mod activation;
mod backend;
mod backends;
mod box_coder;
mod boxes;
mod channels;
mod conv2d;
mod conv_transpose2d;
mod convolution;
#[cfg(feature = "flex")]
pub mod cpu;
mod crop;
mod devices;
mod forward;
mod gate;
mod image;
mod linear;
mod loss_functions;
mod losses;
mod matcher;
mod max_pool;
mod module_path;
mod nms;
mod plan;
#[cfg(feature = "record")]
pub mod record;
mod roi_align;
mod roi_pool;
mod same;
mod sampler;
mod top_k;

pub use activation::Activation;
pub use backend::DetectionBackend;
pub use box_coder::{BBOX_XFORM_CLIP, BoxCoder, clip as clip_boxes};
pub use boxes::box_iou_matrix;
pub use channels::{channel_affine, channel_moments, concat_channels};
pub use conv_transpose2d::conv_transpose2d;
pub use conv2d::Conv2d;
pub use convolution::{ConvEpilogue, ConvPrecision};
pub use crop::{Crops, Samples, crop_and_max_pool};
#[cfg(feature = "wgpu")]
pub use devices::wgpu_device;
pub use devices::{DeviceError, DeviceInfo, devices, probe};
pub use forward::{Forward, ForwardHook, LayerOutput, Phase, Scope};
pub use gate::{channel_gate, global_average_pool};
pub use image::{ImageFit, PixelPositions, fit_image};
pub use linear::Linear;
pub use loss_functions::{
    binary_cross_entropy_with_logits, cross_entropy, focal_loss, smooth_l1_sum,
};
pub use losses::Losses;
pub use matcher::{Match, Matcher};
pub use max_pool::max_pool2d;
pub use module_path::{ModulePath, module_of};
pub use nms::{SoftNms, batched_nms, grouped_nms, nms, soft_nms};
pub use plan::{LayerPlan, Planned};
pub use roi_align::{RoiAlignOptions, RoiLevel, multi_scale_roi_align, roi_align};
pub use roi_pool::{RoiPoolOptions, multi_scale_roi_pool, roi_pool};
pub use same::{average_pool3x3, max_pool_same};
pub use sampler::{BalancedSampler, Sample, Subsample};
pub use top_k::top_k;

pub use rcnn_types::boxes::{
    BBox, BoxRules, box_area, box_iou, clip_box, clip_boxes_to_image, remove_small_boxes,
};

/// The default bodies of [`DetectionBackend`]'s methods, to compare kernels with.
pub mod reference {
    pub use crate::box_coder::reference as decode_boxes;
    pub use crate::boxes::iou_reference as box_iou;
    pub use crate::nms::reference as nms;
    pub use crate::roi_align::{backward as roi_align_backward, forward as roi_align};
    pub use crate::roi_pool::{backward as roi_pool_backward, forward as roi_pool};
    pub use crate::top_k::reference as top_k;
}

/// The backends that this build offers, under the names that Burn users know.
pub mod backend_types {
    #[cfg(feature = "cuda")]
    pub use burn_cuda::{Cuda, CudaDevice};
    #[cfg(feature = "flex")]
    pub use burn_flex::{Flex, FlexDevice};
    #[cfg(feature = "ndarray")]
    pub use burn_ndarray::{NdArray, NdArrayDevice};
    #[cfg(feature = "wgpu")]
    pub use burn_wgpu::{Wgpu, WgpuDevice};
}
