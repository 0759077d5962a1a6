//! The weights that torchvision publishes for MobileNetV2.

use crate::published::{Published, row};

/// Classifiers.
#[rustfmt::skip] // one line a file
pub(crate) static PUBLISHED: [Published; 2] = [
    row!("mobilenet_v2", "MobileNet_V2_Weights", "IMAGENET1K_V1", false, "mobilenet_v2-b0353104.pth", 3504872, 71.878, 13.555),
    row!("mobilenet_v2", "MobileNet_V2_Weights", "IMAGENET1K_V2", true, "mobilenet_v2-7ebf99e0.pth", 3504872, 72.154, 13.598),
];
