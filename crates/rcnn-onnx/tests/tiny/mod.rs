//! A small detector over a custom backbone, with weights that look random.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Tensor, TensorData, activation::relu, backend::Backend};
use rcnn_backbone::{Backbone, FeatureMaps, Forward, LevelSpec};
use rcnn_detector::{FasterRcnn, FasterRcnnConfig};
use rcnn_ops::backend_types::Flex;
use rcnn_ops::record::Recorder;
use rcnn_ops::{BoxRules, DetectionBackend, max_pool_same};
use rcnn_roi::{KeypointConfig, MaskConfig, MultiScaleRoiAlign, PoolMethod};

/// Two levels, of plain Burn layers.
#[derive(Module, Debug)]
pub(crate) struct Tiny<B: Backend> {
    stem: Conv2d<B>,
    fine: Conv2d<B>,
    coarse: Conv2d<B>,
    /// A convolution with TensorFlow's padding, which halves the image before a pooling halves it again.
    same: Option<rcnn_ops::Conv2d<B>>,
    #[module(skip)]
    kind: Kind,
}

/// The operations of a [`Tiny`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Convolutions and ReLU.
    Plain,
    /// Something that ONNX export does not know.
    Odd,
    /// With TensorFlow's padding.
    Same,
}

fn tiny<B: Backend>(kind: Kind) -> Tiny<B> {
    let conv = |channels, stride: usize| {
        Conv2dConfig::new(channels, [3, 3])
            .with_stride([stride; 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init(&Default::default())
    };
    let same = (kind == Kind::Same).then(|| {
        let mut halved: Conv2d<B> = conv([3, 3], 2);
        halved.padding = PaddingConfig2d::Same;
        halved.into()
    });
    Tiny {
        stem: conv([3, 4], if same.is_some() { 1 } else { 4 }),
        fine: conv([4, 4], 2),
        coarse: conv([4, 4], 2),
        same,
        kind,
    }
}

impl<B: DetectionBackend> Backbone<B> for Tiny<B> {
    fn forward(&self, images: Tensor<B, 4>, _cx: &mut Forward<'_, B>) -> FeatureMaps<B> {
        let images = match &self.same {
            Some(same) => max_pool_same(same.forward(images), 3, 2),
            None => images,
        };
        let mut x = relu(self.stem.forward(images));
        if self.kind == Kind::Odd {
            x = x.sin();
        }
        let fine = relu(self.fine.forward(x));
        let coarse = relu(self.coarse.forward(fine.clone()));
        FeatureMaps::new(vec![("0".into(), fine), ("1".into(), coarse)])
    }

    fn levels(&self) -> Vec<LevelSpec> {
        vec![LevelSpec::new("0", 4, 8), LevelSpec::new("1", 4, 16)]
    }

    fn size_divisibility(&self) -> usize {
        match self.kind {
            Kind::Same => 1,
            _ => 16,
        }
    }
}

/// Numbers that look random, the same on every machine.
fn noise(seed: u64, index: usize) -> f32 {
    let mut z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
}

/// Gives each parameter such numbers.
struct Fill(u64);

impl ModuleMapper<Flex> for Fill {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Flex, D>>,
    ) -> Param<Tensor<Flex, D>> {
        self.0 += 1;
        let seed = self.0;
        param.map(|tensor| {
            let shape = tensor.dims();
            let count: usize = shape.iter().product();
            let scale = 2.0 * (shape[0] as f32 / count as f32).sqrt();
            let values = (0..count).map(|i| (noise(seed, i) - 0.45) * scale);
            let values: Vec<f32> = values.collect();
            Tensor::from_data(TensorData::new(values, shape), &tensor.device())
        })
    }
}

pub(crate) fn config() -> FasterRcnnConfig {
    let mut config = FasterRcnnConfig::custom(4);
    config.class_names = ["background", "a", "b", "c"].map(String::from).into();
    config.transform.min_size = vec![48];
    config.transform.max_size = 80;
    config.transform.size_divisible = 16;
    config.rpn.anchor_generator.sizes = vec![vec![12.0], vec![40.0]];
    config.rpn.anchor_generator.aspect_ratios = vec![vec![0.5, 1.0]; 2];
    config.rpn.pre_nms_top_n_test = 60;
    config.rpn.post_nms_top_n_test = 50;
    let roi = &mut config.roi_heads;
    roi.box_head = "fc:16".parse().expect("a head");
    roi.box_roi_pool.output_size = [3, 2];
    // So that both levels are used.
    roi.box_roi_pool.canonical_scale = 20.0;
    roi.box_roi_pool.canonical_level = 3;
    roi.detections_per_img = 12;
    roi.score_thresh = 0.2;
    let pool = MultiScaleRoiAlign {
        output_size: [4, 4],
        ..roi.box_roi_pool.clone()
    };
    roi.mask = Some(MaskConfig {
        roi_pool: pool.clone(),
        layers: vec![4],
        norm: None,
        dim_reduced: 4,
    });
    roi.keypoint = Some(KeypointConfig {
        roi_pool: pool,
        layers: vec![4],
        num_keypoints: 2,
        ..KeypointConfig::default()
    });
    config
}

/// A detector by TensorFlow's rules.
pub(crate) fn tensorflow(rules: BoxRules) -> FasterRcnnConfig {
    let mut config = config();
    config.set_tensorflow_rules(rules);
    config.transform.size_divisible = 1;
    config.rpn.anchor_generator.strides = Some(vec![8, 16]);
    config.rpn.bbox_reg_weights = [10.0, 10.0, 5.0, 5.0];
    let roi = &mut config.roi_heads;
    roi.box_roi_pool.method = PoolMethod::CropAndResize;
    roi.box_roi_pool.featmap_names = vec!["0".into()];
    roi.detections_per_class = Some(4);
    (roi.mask, roi.keypoint) = (None, None);
    config
}

/// A detector that pools the largest of a bin's pixels, and has settings that torchvision has not.
pub(crate) fn roi_pool() -> FasterRcnnConfig {
    let mut config = config();
    config.rpn.bbox_reg_weights = [2.0, 2.0, 1.0, 1.0];
    let roi = &mut config.roi_heads;
    roi.box_roi_pool.method = PoolMethod::RoiPool;
    (roi.nms_class_agnostic, roi.detections_per_class) = (true, Some(3));
    (roi.mask, roi.keypoint) = (None, None);
    config
}

pub(crate) type Model<B> = FasterRcnn<B, Tiny<B>>;

pub(crate) fn models(config: &FasterRcnnConfig, kind: Kind) -> (Model<Flex>, Model<Recorder>) {
    let device = Default::default();
    let model = config.init_with_backbone(tiny::<Flex>(kind), &device);
    let recorded = config.init_with_backbone(tiny::<Recorder>(kind), &Default::default());
    let model = model.expect("a model").map(&mut Fill(0));
    (model, recorded.expect("a model"))
}
