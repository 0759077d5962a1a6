//! The weights that torchvision publishes for the architectures of this project, as torchvision 0.29 lists them.

use std::fmt;

use crate::{mobilenet_v2, mobilenet_v3, resnet, vgg};

/// A row of the table; one for a backbone leaves out what they have in common.
macro_rules! row {
    ($builder:literal, $weights_enum:literal, $weights:literal, $is_default:literal, $file:literal,
     $num_params:literal, $metric:expr, $file_size:literal, $num_classes:literal, $norm_eps:expr) => {
        $crate::published::Published {
            builder: $builder,
            weights_enum: $weights_enum,
            weights: $weights,
            is_default: $is_default,
            url: concat!("https://download.pytorch.org/models/", $file),
            num_params: $num_params,
            metric: $metric,
            file_size: $file_size,
            num_classes: $num_classes,
            norm_eps: $norm_eps,
        }
    };
    ($builder:literal, $weights_enum:literal, $weights:literal, $is_default:literal, $file:literal,
     $num_params:literal, $acc1:literal, $file_size:literal) => {
        $crate::published::row!(
            $builder,
            $weights_enum,
            $weights,
            $is_default,
            $file,
            $num_params,
            $crate::published::Metric::Acc1($acc1),
            $file_size,
            1000,
            None
        )
    };
}
pub(crate) use row;

/// One published file of weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// torchvision's function that builds the network: `fasterrcnn_resnet50_fpn`.
    pub builder: &'static str,
    /// torchvision's enum of the network's weights: `FasterRCNN_ResNet50_FPN_Weights`.
    pub weights_enum: &'static str,
    /// The name in that enum: `COCO_V1`.
    pub weights: &'static str,
    /// Whether torchvision's `DEFAULT` means these.
    pub is_default: bool,
    /// URL of the file.
    pub url: &'static str,
    /// Learnable parameters of the network, frozen ones included.
    pub num_params: u64,
    /// Accuracy of the network with these weights.
    pub metric: Metric,
    /// Size of the file in MiB (2^20 bytes), rounded to thousandths.
    pub file_size: f64,
    /// Classes told apart; for detectors the background is one of them.
    pub num_classes: usize,
    /// The epsilon that torchvision gives the frozen norms when it loads these weights, where it is not their own.
    pub norm_eps: Option<f64>,
}

/// Published accuracy, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// Average precision of boxes on COCO val2017, over IoU 0.50 to 0.95.
    BoxMap(f64),
    /// Mask R-CNN: average precision of boxes and of masks on COCO val2017.
    BoxMaskMap(f64, f64),
    /// Keypoint R-CNN: average precision of boxes and of keypoints on the people of COCO val2017.
    BoxKeypointMap(f64, f64),
    /// Top-1 accuracy on the validation images of ImageNet-1K.
    Acc1(f64),
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BoxMap(value) => write!(f, "box mAP {value:.1}"),
            Self::BoxMaskMap(boxes, masks) => write!(f, "box mAP {boxes:.1}, mask {masks:.1}"),
            Self::BoxKeypointMap(boxes, keypoints) => {
                write!(f, "box mAP {boxes:.1}, keypoint {keypoints:.1}")
            }
            Self::Acc1(value) => write!(f, "acc@1 {value:.3}"),
        }
    }
}

impl Published {
    /// The name of the file: `resnet18-f37072fd.pth`.
    pub fn file_name(&self) -> &'static str {
        self.url.rsplit_once('/').map_or(self.url, |(_, name)| name)
    }

    /// The first hexadecimal digits of the file's SHA-256, which its name ends with: `f37072fd`.
    pub fn hash_prefix(&self) -> &'static str {
        let name = self.file_name();
        let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
        stem.rsplit_once('-').map_or("", |(_, hash)| hash)
    }

    /// Whether a file of that many bytes has the published size, as far as that is known.
    pub fn has_size(&self, bytes: u64) -> bool {
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        (mebibytes - self.file_size).abs() < 0.001
    }

    /// Whether these are a detector's weights, not a classifier's.
    pub fn is_detector(&self) -> bool {
        !matches!(self.metric, Metric::Acc1(_))
    }

    /// torchvision's full name: `ResNet18_Weights.IMAGENET1K_V1`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.weights_enum, self.weights)
    }
}

/// All published files that can be named: detectors first, then classifiers for backbones.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_backbone as backbone; }
/// use rcnn_burn::backbone::published;
///
/// let detectors = published::all().filter(|weights| weights.is_detector());
/// for weights in detectors {
///     println!("{} {} MiB", weights.full_name(), weights.file_size);
/// }
/// ```
pub fn all() -> impl Iterator<Item = &'static Published> {
    let rows = || {
        let tables: [&'static [Published]; 4] = [
            &resnet::PUBLISHED,
            &mobilenet_v3::PUBLISHED,
            &mobilenet_v2::PUBLISHED,
            &vgg::PUBLISHED,
        ];
        tables.into_iter().flatten()
    };
    let detectors = rows().filter(|row| row.is_detector());
    detectors.chain(rows().filter(|row| !row.is_detector()))
}
