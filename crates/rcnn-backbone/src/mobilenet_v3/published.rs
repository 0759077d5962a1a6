//! The weights that torchvision publishes for MobileNetV3 and for detectors over it.

use crate::published::{Metric, Published, row};

/// Detectors and classifiers.
#[rustfmt::skip] // one line a file
pub(crate) static PUBLISHED: [Published; 5] = [
    row!("fasterrcnn_mobilenet_v3_large_fpn", "FasterRCNN_MobileNet_V3_Large_FPN_Weights", "COCO_V1", true, "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", 19386354, Metric::BoxMap(32.8), 74.239, 91, None),
    row!("fasterrcnn_mobilenet_v3_large_320_fpn", "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights", "COCO_V1", true, "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth", 19386354, Metric::BoxMap(22.8), 74.239, 91, None),

    row!("mobilenet_v3_large", "MobileNet_V3_Large_Weights", "IMAGENET1K_V1", false, "mobilenet_v3_large-8738ca79.pth", 5483032, 74.042, 21.114),
    row!("mobilenet_v3_large", "MobileNet_V3_Large_Weights", "IMAGENET1K_V2", true, "mobilenet_v3_large-5c1a4163.pth", 5483032, 75.274, 21.107),
    row!("mobilenet_v3_small", "MobileNet_V3_Small_Weights", "IMAGENET1K_V1", true, "mobilenet_v3_small-047dcff4.pth", 2542856, 67.668, 9.829),
];
