//! The weights that torchvision publishes for VGG.

use crate::published::{Published, row};

/// Classifiers. Not among them: `VGG16_Weights.IMAGENET1K_FEATURES`, which has no classifier and is for images that are
/// normalised differently.
#[rustfmt::skip] // one line a file
pub(crate) static PUBLISHED: [Published; 8] = [
    row!("vgg11", "VGG11_Weights", "IMAGENET1K_V1", true, "vgg11-8a719046.pth", 132863336, 69.020, 506.84),
    row!("vgg11_bn", "VGG11_BN_Weights", "IMAGENET1K_V1", true, "vgg11_bn-6002323d.pth", 132868840, 70.370, 506.881),
    row!("vgg13", "VGG13_Weights", "IMAGENET1K_V1", true, "vgg13-19584684.pth", 133047848, 69.928, 507.545),
    row!("vgg13_bn", "VGG13_BN_Weights", "IMAGENET1K_V1", true, "vgg13_bn-abd245e5.pth", 133053736, 71.586, 507.59),
    row!("vgg16", "VGG16_Weights", "IMAGENET1K_V1", true, "vgg16-397923af.pth", 138357544, 71.592, 527.796),
    row!("vgg16_bn", "VGG16_BN_Weights", "IMAGENET1K_V1", true, "vgg16_bn-6c64b313.pth", 138365992, 73.360, 527.866),
    row!("vgg19", "VGG19_Weights", "IMAGENET1K_V1", true, "vgg19-dcbb9e9d.pth", 143667240, 72.376, 548.051),
    row!("vgg19_bn", "VGG19_BN_Weights", "IMAGENET1K_V1", true, "vgg19_bn-c79401a0.pth", 143678248, 74.218, 548.143),
];
