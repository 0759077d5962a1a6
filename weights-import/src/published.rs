//! The weights that torchvision publishes for what this project builds, as torchvision 0.29 lists them: the table that
//! the download and the command line look names up in.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

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
    /// Where the file is downloaded from.
    pub url: &'static str,
    /// Learnable parameters of the network, frozen ones included.
    pub num_params: u64,
    /// How good the network is with these weights.
    pub metric: Metric,
    /// Size of the file in MiB (2^20 bytes), rounded to thousandths.
    pub file_size: f64,
    /// Classes told apart; for detectors the background is one of them.
    pub num_classes: usize,
    /// The epsilon that torchvision gives the frozen norms when it loads these weights, where it is not their own.
    pub norm_eps: Option<f64>,
}

/// A published figure of quality, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// Average precision of boxes on COCO val2017, over IoU 0.50 to 0.95.
    BoxMap(f64),
    /// Top-1 accuracy on the validation images of ImageNet-1K.
    Acc1(f64),
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BoxMap(value) => write!(f, "box mAP {value:.1}"),
            Self::Acc1(value) => write!(f, "acc@1 {value:.3}"),
        }
    }
}

/// A row of the table; one for a backbone leaves out what they have in common.
macro_rules! row {
    ($builder:literal, $weights_enum:literal, $weights:literal, $is_default:literal, $file:literal,
     $num_params:literal, $metric:expr, $file_size:literal, $num_classes:literal, $norm_eps:expr) => {
        Published {
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
        row!(
            $builder,
            $weights_enum,
            $weights,
            $is_default,
            $file,
            $num_params,
            Metric::Acc1($acc1),
            $file_size,
            1000,
            None
        )
    };
}

/// Every published file known here: detectors first, then backbones trained to classify.
#[rustfmt::skip] // one line a file
pub static PUBLISHED: [Published; 19] = [
    // torchvision sets the frozen norms' epsilon to 0 for the first of these, which was trained before they had one.
    row!("fasterrcnn_resnet50_fpn", "FasterRCNN_ResNet50_FPN_Weights", "COCO_V1", true, "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 41755286, Metric::BoxMap(37.0), 159.743, 91, Some(0.0)),
    row!("fasterrcnn_resnet50_fpn_v2", "FasterRCNN_ResNet50_FPN_V2_Weights", "COCO_V1", true, "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 43712278, Metric::BoxMap(46.7), 167.104, 91, None),

    row!("resnet18", "ResNet18_Weights", "IMAGENET1K_V1", true, "resnet18-f37072fd.pth", 11689512, 69.758, 44.661),
    row!("resnet34", "ResNet34_Weights", "IMAGENET1K_V1", true, "resnet34-b627a593.pth", 21797672, 73.314, 83.275),
    row!("resnet50", "ResNet50_Weights", "IMAGENET1K_V1", false, "resnet50-0676ba61.pth", 25557032, 76.130, 97.781),
    row!("resnet50", "ResNet50_Weights", "IMAGENET1K_V2", true, "resnet50-11ad3fa6.pth", 25557032, 80.858, 97.79),
    row!("resnet101", "ResNet101_Weights", "IMAGENET1K_V1", false, "resnet101-63fe2227.pth", 44549160, 77.374, 170.511),
    row!("resnet101", "ResNet101_Weights", "IMAGENET1K_V2", true, "resnet101-cd907fc2.pth", 44549160, 81.886, 170.53),
    row!("resnet152", "ResNet152_Weights", "IMAGENET1K_V1", false, "resnet152-394f9c45.pth", 60192808, 78.312, 230.434),
    row!("resnet152", "ResNet152_Weights", "IMAGENET1K_V2", true, "resnet152-f82ba261.pth", 60192808, 82.284, 230.474),
    row!("resnext50_32x4d", "ResNeXt50_32X4D_Weights", "IMAGENET1K_V1", false, "resnext50_32x4d-7cdf4587.pth", 25028904, 77.618, 95.789),
    row!("resnext50_32x4d", "ResNeXt50_32X4D_Weights", "IMAGENET1K_V2", true, "resnext50_32x4d-1a0047aa.pth", 25028904, 81.198, 95.833),
    row!("resnext101_32x8d", "ResNeXt101_32X8D_Weights", "IMAGENET1K_V1", false, "resnext101_32x8d-8ba56ff5.pth", 88791336, 79.312, 339.586),
    row!("resnext101_32x8d", "ResNeXt101_32X8D_Weights", "IMAGENET1K_V2", true, "resnext101_32x8d-110c445d.pth", 88791336, 82.834, 339.673),
    row!("resnext101_64x4d", "ResNeXt101_64X4D_Weights", "IMAGENET1K_V1", true, "resnext101_64x4d-173b62eb.pth", 83455272, 83.246, 319.318),
    // The V1 files of the wide networks hold 16-bit numbers: half the size.
    row!("wide_resnet50_2", "Wide_ResNet50_2_Weights", "IMAGENET1K_V1", false, "wide_resnet50_2-95faca4d.pth", 68883240, 78.468, 131.82),
    row!("wide_resnet50_2", "Wide_ResNet50_2_Weights", "IMAGENET1K_V2", true, "wide_resnet50_2-9ba9bcbe.pth", 68883240, 81.602, 263.124),
    row!("wide_resnet101_2", "Wide_ResNet101_2_Weights", "IMAGENET1K_V1", false, "wide_resnet101_2-32ee1156.pth", 126886696, 78.848, 242.896),
    row!("wide_resnet101_2", "Wide_ResNet101_2_Weights", "IMAGENET1K_V2", true, "wide_resnet101_2-d733dc28.pth", 126886696, 82.51, 484.747),
];

/// The classes of the detectors trained on COCO, by label. `N/A` are numbers that COCO gave up.
#[rustfmt::skip] // ten a line
pub const COCO_CATEGORIES: [&str; 91] = [
    "__background__", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "N/A", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse",
    "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "N/A", "backpack", "umbrella", "N/A",
    "N/A", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "N/A", "wine glass", "cup", "fork", "knife",
    "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza",
    "donut", "cake", "chair", "couch", "potted plant", "bed", "N/A", "dining table", "N/A", "N/A",
    "toilet", "N/A", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "N/A", "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
    "toothbrush",
];

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

    /// Whether a file of so many bytes has the published size, as far as that is known.
    pub(crate) fn has_size(&self, bytes: u64) -> bool {
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        (mebibytes - self.file_size).abs() < 0.001
    }

    /// torchvision's full name: `ResNet18_Weights.IMAGENET1K_V1`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.weights_enum, self.weights)
    }
}

/// The hexadecimal digits of the SHA-256 of all that a reader gives.
pub(crate) fn sha256(mut reader: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let digits = hash.finalize();
    Ok(digits.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A name that is not in [`PUBLISHED`].
#[derive(Debug, thiserror::Error)]
#[error("`{name}` are no published weights; known are {}", known_names())]
pub struct UnknownName {
    /// The name asked for.
    pub name: String,
}

fn known_names() -> String {
    PUBLISHED
        .iter()
        .map(Published::full_name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Looks weights up by what torchvision's users call them, in any case: `ResNet50_Weights.IMAGENET1K_V2`, `.DEFAULT`, the
/// builder's name alone for its default weights, and `COCO_V1` for those of `fasterrcnn_resnet50_fpn`.
///
/// # Errors
///
/// [`UnknownName`], which lists the known ones.
pub fn find(name: &str) -> Result<&'static Published, UnknownName> {
    let lower = name.trim().to_lowercase();
    let (network, weights) = match lower.as_str() {
        "coco_v1" => (PUBLISHED[0].builder, "coco_v1"),
        name => name.split_once('.').unwrap_or((name, "default")),
    };
    let builder = network.strip_suffix("_weights").unwrap_or(network);
    let is_meant = |published: &&Published| {
        published.builder == builder
            && (published.weights.eq_ignore_ascii_case(weights)
                || published.is_default && weights == "default")
    };
    PUBLISHED.iter().find(is_meant).ok_or_else(|| UnknownName {
        name: name.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_names() {
        for row in &PUBLISHED {
            assert_eq!(find(&row.full_name()).unwrap(), row);
            assert_eq!(
                find(&format!("{}.{}", row.builder, row.weights).to_uppercase()).unwrap(),
                row
            );
            assert_eq!(
                row.weights_enum.to_lowercase(),
                format!("{}_weights", row.builder)
            );
            assert!(
                row.hash_prefix().len() == 8
                    && row.hash_prefix().chars().all(|c| c.is_ascii_hexdigit())
            );
            let defaults = PUBLISHED
                .iter()
                .filter(|other| other.builder == row.builder && other.is_default);
            assert_eq!(defaults.count(), 1, "{}", row.builder);
        }
    }

    #[test]
    fn short_names_mean_what_torchvision_loads() {
        let full = |name: &str| find(name).unwrap().full_name();
        assert_eq!(full("COCO_V1"), "FasterRCNN_ResNet50_FPN_Weights.COCO_V1");
        assert_eq!(
            full("fasterrcnn_resnet50_fpn"),
            "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"
        );
        assert_eq!(
            full("fasterrcnn_resnet50_fpn_v2"),
            "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1"
        );
        assert_eq!(full("resnet50"), "ResNet50_Weights.IMAGENET1K_V2");
        assert_eq!(
            full("ResNet50_Weights.DEFAULT"),
            "ResNet50_Weights.IMAGENET1K_V2"
        );
        assert_eq!(
            full(" resnext101_64x4d "),
            "ResNeXt101_64X4D_Weights.IMAGENET1K_V1"
        );
        assert_eq!(find("COCO_V1").unwrap().norm_eps, Some(0.0));
        assert_eq!(find("fasterrcnn_resnet50_fpn_v2").unwrap().norm_eps, None);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        for name in ["IMAGENET1K_V1", "resnet50.COCO_V1", "yolo", ""] {
            let message = find(name).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("`{name}`"))
                    && message.contains("ResNet34_Weights.IMAGENET1K_V1")
            );
        }
    }

    #[test]
    fn coco_labels_count_from_the_background() {
        assert_eq!(
            (COCO_CATEGORIES[1], COCO_CATEGORIES[18], COCO_CATEGORIES[90]),
            ("person", "dog", "toothbrush")
        );
        assert_eq!(
            COCO_CATEGORIES
                .iter()
                .filter(|&&name| name == "N/A")
                .count(),
            10
        );
    }
}

/// Published weights whose file is `bytes`, at an address where nothing answers.
#[cfg(test)]
pub(crate) fn toy(bytes: &[u8], metric: Metric, norm_eps: Option<f64>) -> Published {
    let digits = sha256(bytes).unwrap();
    let thousandths = (bytes.len() as f64 / f64::from(1 << 20) * 1e3).round();
    Published {
        builder: "toy",
        weights_enum: "Toy_Weights",
        weights: "V1",
        is_default: true,
        url: format!("http://127.0.0.1:9/toy-{}.pth", &digits[..8]).leak(),
        num_params: 1,
        metric,
        file_size: thousandths / 1e3,
        num_classes: 3,
        norm_eps,
    }
}
