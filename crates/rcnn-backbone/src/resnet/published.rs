//! The weights that torchvision publishes for ResNets and for detectors over them.

use crate::published::{Metric, Published, row};

/// Detectors and classifiers.
#[rustfmt::skip] // one line a file
pub(crate) static PUBLISHED: [Published; 23] = [
    // torchvision sets the frozen norms' epsilon to 0 for those that were trained before they had one.
    row!("fasterrcnn_resnet50_fpn", "FasterRCNN_ResNet50_FPN_Weights", "COCO_V1", true, "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 41755286, Metric::BoxMap(37.0), 159.743, 91, Some(0.0)),
    row!("fasterrcnn_resnet50_fpn_v2", "FasterRCNN_ResNet50_FPN_V2_Weights", "COCO_V1", true, "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 43712278, Metric::BoxMap(46.7), 167.104, 91, None),
    row!("maskrcnn_resnet50_fpn", "MaskRCNN_ResNet50_FPN_Weights", "COCO_V1", true, "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 44401393, Metric::BoxMaskMap(37.9, 34.6), 169.84, 91, Some(0.0)),
    row!("maskrcnn_resnet50_fpn_v2", "MaskRCNN_ResNet50_FPN_V2_Weights", "COCO_V1", true, "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", 46359409, Metric::BoxMaskMap(47.4, 41.8), 177.219, 91, None),
    // Of the same size and shapes: their content alone says which has which epsilon.
    row!("keypointrcnn_resnet50_fpn", "KeypointRCNN_ResNet50_FPN_Weights", "COCO_LEGACY", false, "keypointrcnn_resnet50_fpn_coco-9f466800.pth", 59137258, Metric::BoxKeypointMap(50.6, 61.1), 226.054, 2, None),
    row!("keypointrcnn_resnet50_fpn", "KeypointRCNN_ResNet50_FPN_Weights", "COCO_V1", true, "keypointrcnn_resnet50_fpn_coco-fc266e95.pth", 59137258, Metric::BoxKeypointMap(54.6, 65.0), 226.054, 2, Some(0.0)),

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
