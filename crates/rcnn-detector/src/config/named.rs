//! torchvision's detectors, by the names of the functions that build them.

use rcnn_backbone::inception_v2::InceptionV2Config;
use rcnn_backbone::{BackboneConfig, MobileNetV3Arch, SequentialConfig, VggArch};
use rcnn_ops::BoxRules;
use rcnn_roi::{BoxHeadConfig, KeypointConfig, MaskConfig, PoolMethod};
use rcnn_rpn::AnchorGenerator;

use crate::{FasterRcnnConfig, ResizeRule};

/// A configuration for a number of classes.
type Build = fn(usize) -> FasterRcnnConfig;

/// Functions of `torchvision.models.detection` and what they build, the paper's detector, and a model of TensorFlow's
/// Object Detection API.
const DETECTORS: [(&str, Build); 9] = [
    (
        "fasterrcnn_resnet50_fpn",
        FasterRcnnConfig::fasterrcnn_resnet50_fpn,
    ),
    (
        "fasterrcnn_resnet50_fpn_v2",
        FasterRcnnConfig::fasterrcnn_resnet50_fpn_v2,
    ),
    (
        "maskrcnn_resnet50_fpn",
        FasterRcnnConfig::maskrcnn_resnet50_fpn,
    ),
    (
        "maskrcnn_resnet50_fpn_v2",
        FasterRcnnConfig::maskrcnn_resnet50_fpn_v2,
    ),
    (
        "keypointrcnn_resnet50_fpn",
        FasterRcnnConfig::keypointrcnn_resnet50_fpn,
    ),
    (
        "fasterrcnn_mobilenet_v3_large_fpn",
        FasterRcnnConfig::fasterrcnn_mobilenet_v3_large_fpn,
    ),
    (
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        FasterRcnnConfig::fasterrcnn_mobilenet_v3_large_320_fpn,
    ),
    ("fasterrcnn_vgg16", FasterRcnnConfig::fasterrcnn_vgg16),
    (
        "faster_rcnn_inception_v2_coco",
        FasterRcnnConfig::faster_rcnn_inception_v2_coco,
    ),
];

/// Error for a name that is neither a detector's nor a backbone's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown model '{name}'; known are {}", known().join(", "))]
pub struct UnknownModel {
    /// The name that was given.
    pub name: String,
}

fn known() -> Vec<&'static str> {
    let detectors = DETECTORS.iter().map(|(name, _)| *name);
    detectors.chain(BackboneConfig::names()).collect()
}

impl Default for FasterRcnnConfig {
    /// [`fasterrcnn_resnet50_fpn`](Self::fasterrcnn_resnet50_fpn) with COCO's 91 classes.
    fn default() -> Self {
        Self::fasterrcnn_resnet50_fpn(91)
    }
}

impl FasterRcnnConfig {
    /// `torchvision.models.detection.fasterrcnn_resnet50_fpn` as it is with pretrained weights: frozen
    /// batch norm.
    pub fn fasterrcnn_resnet50_fpn(num_classes: usize) -> Self {
        Self::new(BackboneConfig::default(), num_classes)
    }

    /// `torchvision.models.detection.fasterrcnn_resnet50_fpn_v2`.
    pub fn fasterrcnn_resnet50_fpn_v2(num_classes: usize) -> Self {
        let mut config = Self::new(BackboneConfig::resnet50_fpn_v2(), num_classes);
        config.rpn.conv_depth = 2;
        config.roi_heads.box_head = BoxHeadConfig::v2();
        config
    }

    /// `torchvision.models.detection.maskrcnn_resnet50_fpn` as it is with pretrained weights: frozen batch
    /// norm.
    pub fn maskrcnn_resnet50_fpn(num_classes: usize) -> Self {
        Self::fasterrcnn_resnet50_fpn(num_classes).with_mask(MaskConfig::default())
    }

    /// `torchvision.models.detection.maskrcnn_resnet50_fpn_v2`.
    pub fn maskrcnn_resnet50_fpn_v2(num_classes: usize) -> Self {
        Self::fasterrcnn_resnet50_fpn_v2(num_classes).with_mask(MaskConfig::v2())
    }

    /// `torchvision.models.detection.keypointrcnn_resnet50_fpn` as it is with pretrained weights: frozen
    /// batch norm, and COCO's 17 keypoints of a person. COCO has two classes here, the background and
    /// people.
    pub fn keypointrcnn_resnet50_fpn(num_classes: usize) -> Self {
        Self::fasterrcnn_resnet50_fpn(num_classes).with_keypoint(KeypointConfig::default())
    }

    /// Adds a mask branch: torchvision's `MaskRCNN` over this backbone.
    pub fn with_mask(mut self, mask: MaskConfig) -> Self {
        self.roi_heads.mask = Some(mask);
        self
    }

    /// Adds a keypoint branch: torchvision's `KeypointRCNN` over this backbone, which trains at several
    /// sizes.
    pub fn with_keypoint(mut self, keypoint: KeypointConfig) -> Self {
        self.roi_heads.keypoint = Some(keypoint);
        self.transform.min_size = vec![640, 672, 704, 736, 768, 800];
        self
    }

    /// `torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn` as it is with pretrained weights: frozen
    /// batch norm.
    pub fn fasterrcnn_mobilenet_v3_large_fpn(num_classes: usize) -> Self {
        let backbone = SequentialConfig::with_fpn(MobileNetV3Arch::Large);
        let mut config = Self::new(backbone, num_classes);
        config.rpn.score_thresh = 0.05;
        config
    }

    /// `torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn`: the same for small images, with fewer
    /// proposals.
    pub fn fasterrcnn_mobilenet_v3_large_320_fpn(num_classes: usize) -> Self {
        let mut config = Self::fasterrcnn_mobilenet_v3_large_fpn(num_classes);
        config.transform.min_size = vec![320];
        config.transform.max_size = 640;
        config.rpn.pre_nms_top_n_test = 150;
        config.rpn.post_nms_top_n_test = 150;
        config
    }

    /// The detector of the paper (Ren et al. 2015, <https://arxiv.org/abs/1506.01497>): VGG-16 without its last pooling,
    /// three sizes of anchors, RoIPool and two linear layers of 4096 with dropout. Images are normalised as torchvision's
    /// VGG-16 has them. torchvision has no such function.
    pub fn fasterrcnn_vgg16(num_classes: usize) -> Self {
        let backbone = SequentialConfig {
            trim_last_stage: true,
            ..SequentialConfig::features(VggArch::Vgg16)
        };
        let mut config = Self::new(backbone, num_classes);
        config.transform.min_size = vec![600];
        config.transform.max_size = 1000;
        let rpn = &mut config.rpn;
        rpn.anchor_generator = AnchorGenerator::with_sizes(vec![vec![128.0, 256.0, 512.0]]);
        rpn.pre_nms_top_n_train = 12_000;
        rpn.pre_nms_top_n_test = 6000;
        rpn.post_nms_top_n_test = 300;
        let heads = &mut config.roi_heads;
        heads.box_roi_pool.featmap_names = vec!["0".into()];
        heads.box_roi_pool.method = PoolMethod::RoiPool;
        heads.box_head = BoxHeadConfig::TwoMlp {
            representation_size: 4096,
        };
        heads.box_dropout = 0.5;
        heads.batch_size_per_image = 128;
        heads.nms_thresh = 0.3;
        config
    }

    /// The model of that name of TensorFlow's Object Detection API as it was published in January 2018 (COCO has 91 classes
    /// here): its `pipeline.config`, and the rules of that time. [`set_tensorflow_rules`](Self::set_tensorflow_rules)
    /// changes the rules.
    pub fn faster_rcnn_inception_v2_coco(num_classes: usize) -> Self {
        let mut config = Self::new(InceptionV2Config::default(), num_classes);
        let transform = &mut config.transform;
        (transform.min_size, transform.max_size) = (vec![600], 1024);
        (transform.image_mean, transform.image_std) = ([0.5; 3], [0.5; 3]);
        transform.size_divisible = 1;

        let rpn = &mut config.rpn;
        rpn.anchor_generator.aspect_ratios = vec![vec![2.0, 1.0, 0.5]];
        rpn.anchor_generator.strides = Some(vec![16]);
        (rpn.conv_channels, rpn.conv_relu6) = (vec![512], true);
        rpn.bbox_reg_weights = [10.0, 10.0, 5.0, 5.0];
        // All: more than there are on any image.
        (rpn.pre_nms_top_n_train, rpn.pre_nms_top_n_test) = (1 << 24, 1 << 24);
        (rpn.post_nms_top_n_train, rpn.post_nms_top_n_test) = (100, 100);
        rpn.nms_thresh = 0.7_f32.into();
        (rpn.loss_weights, rpn.smooth_l1_beta) = ([1.0, 2.0], 1.0);

        let heads = &mut config.roi_heads;
        heads.box_roi_pool.featmap_names = vec!["0".into()];
        heads.box_roi_pool.method = PoolMethod::CropAndResize;
        heads.box_head = BoxHeadConfig::Stage(Default::default());
        heads.score_thresh = 0.3;
        heads.nms_thresh = 0.6_f32.into();
        heads.detections_per_class = Some(100);
        heads.batch_size_per_image = 64;
        heads.add_true_boxes = false;
        (heads.loss_weights, heads.smooth_l1_beta) = ([1.0, 2.0], 1.0);
        config.set_tensorflow_rules(BoxRules::Tensorflow2018);
        config
    }

    /// Sets the rules of boxes in both stages, and with those of TensorFlow the ones of resizing that belong to them.
    pub fn set_tensorflow_rules(&mut self, rules: BoxRules) {
        (self.rpn.box_rules, self.roi_heads.box_rules) = (rules, rules);
        self.transform.resize_rule = match rules {
            BoxRules::Torchvision => ResizeRule::Torchvision,
            BoxRules::Tensorflow2018 => ResizeRule::Tensorflow2018,
            BoxRules::Tensorflow2019 => ResizeRule::Tensorflow2019,
        };
    }

    /// The first of torchvision's detectors over a backbone of this architecture, with this backbone in it; else
    /// torchvision's `FasterRCNN` over it.
    pub fn usual(backbone: BackboneConfig, num_classes: usize) -> Self {
        let mut configs = DETECTORS.iter().map(|(_, build)| build(num_classes));
        let usual = configs.find(|config| is_alike(&config.backbone, &backbone));
        match usual {
            Some(config) => Self { backbone, ..config },
            None => Self::new(backbone, num_classes),
        }
    }

    /// The detector that a function of `torchvision.models.detection` builds, or torchvision's `FasterRCNN`
    /// over a backbone of that name, such as `resnet18`.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; pub use rcnn_types::*; }
    /// use rcnn_burn::{FasterRcnnConfig, Flex};
    ///
    /// let mut config = FasterRcnnConfig::named("fasterrcnn_resnet50_fpn", 91)?;
    /// config.roi_heads.score_thresh = 0.5;
    /// # let config = config.with_surgery(&["cut-after layer2".parse()?, "box-head fc:16".parse()?])?;
    /// let model = config.init::<Flex>(&Default::default())?;
    /// assert_eq!(model.num_classes(), 91);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Lists the known names.
    pub fn named(name: &str, num_classes: usize) -> Result<Self, UnknownModel> {
        if let Some((_, build)) = DETECTORS.iter().find(|(known, _)| *known == name) {
            return Ok(build(num_classes));
        }
        let backbone =
            BackboneConfig::named(name).map_err(|_| UnknownModel { name: name.into() })?;
        Ok(Self::new(backbone, num_classes))
    }
}

/// Whether two backbones are of the same body and have feature maps of the same strides.
fn is_alike(a: &BackboneConfig, b: &BackboneConfig) -> bool {
    let [a, b] = [a, b].map(|backbone| {
        let network = backbone.architecture()?;
        let strides = network.levels().into_iter().map(|level| level.stride);
        Some((network.name(), strides.collect::<Vec<_>>()))
    });
    a.is_some() && a == b
}
