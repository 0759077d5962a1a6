//! torchvision's published weights, looked up by name for the download and the command line.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

pub use rcnn_backbone::published::{Metric, Published, all};

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

/// A model that TensorFlow's Object Detection API published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorflowModel {
    /// Name of the model.
    pub name: &'static str,
    /// Where its archive was published.
    pub url: &'static str,
    /// Size of the archive in bytes, as stated by Open Model Zoo.
    pub file_size: u64,
    /// SHA-256 of the archive in hexadecimal digits, as Open Model Zoo has it.
    pub sha256: &'static str,
    /// Average precision of boxes on COCO, in percent, as the API's list of models has it.
    pub box_map: f64,
    /// Number of classes, background included.
    pub num_classes: usize,
}

/// The TensorFlow model whose weights are read.
pub const TENSORFLOW: TensorflowModel = TensorflowModel {
    name: "faster_rcnn_inception_v2_coco",
    url: "http://download.tensorflow.org/models/object_detection/faster_rcnn_inception_v2_coco_2018_01_28.tar.gz",
    file_size: 149_119_618,
    sha256: "db3295e9a52d406540e84bdd056edeedbf938782a7bc4af7918aaa5dc30f0df5",
    box_map: 28.0,
    num_classes: 91,
};

/// The classes of the Keypoint R-CNN trained on COCO, by label.
pub const COCO_PERSON_CATEGORIES: [&str; 2] = ["no person", "person"];

/// The keypoints of COCO's people.
#[rustfmt::skip] // as they lie
pub const COCO_PERSON_KEYPOINT_NAMES: [&str; 17] = [
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
];

/// The keypoints of COCO's people that a line connects, counted from 0: the `skeleton` of the category in
/// `person_keypoints_val2017.json`, which counts from 1.
#[rustfmt::skip] // legs, trunk, arms, head
pub const COCO_PERSON_SKELETON: [[usize; 2]; 19] = [
    [15, 13], [13, 11], [16, 14], [14, 12],
    [11, 12], [5, 11], [6, 12], [5, 6],
    [5, 7], [6, 8], [7, 9], [8, 10],
    [1, 2], [0, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 6],
];

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

/// A name that no published weights have.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` is not the name of published weights; known are {}",
    known_names()
)]
pub struct UnknownName {
    /// The name asked for.
    pub name: String,
}

fn known_names() -> String {
    all()
        .map(Published::full_name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Looks weights up by what torchvision's users call them, in any case: `ResNet50_Weights.IMAGENET1K_V2`, `.DEFAULT`, the
/// builder's name alone for its default weights, and `COCO_V1` for those of `fasterrcnn_resnet50_fpn`.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use weights_import as weights; }
/// use rcnn_burn::weights::published;
///
/// let weights = published::find("COCO_V1")?;
/// assert_eq!(weights.full_name(), "FasterRCNN_ResNet50_FPN_Weights.COCO_V1");
/// println!("{} MiB from {}", weights.file_size, weights.url);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`UnknownName`], which lists the known ones.
pub fn find(name: &str) -> Result<&'static Published, UnknownName> {
    let lower = name.trim().to_lowercase();
    let (network, weights) = match lower.as_str() {
        "coco_v1" => ("fasterrcnn_resnet50_fpn", "coco_v1"),
        name => name.split_once('.').unwrap_or((name, "default")),
    };
    let builder = network.strip_suffix("_weights").unwrap_or(network);
    let is_meant = |published: &&'static Published| {
        published.builder == builder
            && (published.weights.eq_ignore_ascii_case(weights)
                || published.is_default && weights == "default")
    };
    all().find(is_meant).ok_or_else(|| UnknownName {
        name: name.to_string(),
    })
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

#[cfg(test)]
mod tests {
    use rcnn_types::Skeleton;

    use super::*;

    #[test]
    fn every_row_is_found_by_its_names() {
        for row in all() {
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
            let defaults = all().filter(|other| other.builder == row.builder && other.is_default);
            assert_eq!(defaults.count(), 1, "{}", row.builder);
        }
    }

    #[test]
    fn keypoints_of_people_are_cocos() {
        // The category of COCO's person_keypoints files.
        let skeleton = "[[16,14],[14,12],[17,15],[15,13],[12,13],[6,12],[7,13],[6,7],[6,8],[7,9],[8,10],[9,11],\
                        [2,3],[1,2],[1,3],[2,4],[3,5],[4,6],[5,7]]";
        let from_one = COCO_PERSON_SKELETON.map(|edge| edge.map(|point| point + 1));
        assert_eq!(serde_json::to_string(&from_one).unwrap(), skeleton);
        // Left and right, as detectron2's COCO_PERSON_KEYPOINT_FLIP_MAP exchanges them.
        let skeleton = Skeleton {
            names: COCO_PERSON_KEYPOINT_NAMES.map(String::from).into(),
            ..Default::default()
        };
        let mirrored = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15];
        assert_eq!(skeleton.mirrored(), mirrored);
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
        assert_eq!(
            full("keypointrcnn_resnet50_fpn"),
            "KeypointRCNN_ResNet50_FPN_Weights.COCO_V1"
        );
        // As torchvision's builders call `overwrite_eps`.
        for (name, eps) in [
            ("COCO_V1", Some(0.0)),
            ("fasterrcnn_resnet50_fpn_v2", None),
            ("maskrcnn_resnet50_fpn", Some(0.0)),
            ("maskrcnn_resnet50_fpn_v2", None),
            ("keypointrcnn_resnet50_fpn", Some(0.0)),
            ("keypointrcnn_resnet50_fpn.COCO_LEGACY", None),
        ] {
            assert_eq!(find(name).unwrap().norm_eps, eps, "{name}");
        }
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
