//! The model behind the service.

use image::RgbImage;
use rcnn_core::image::{Batching, to_tensor};
use rcnn_core::ops::DetectionBackend;
use rcnn_core::{DetectError, FasterRcnnConfig, StandardFasterRcnn};
use rcnn_types::{Instances, Size, decimal};
use serde_json::{Value, json};

/// Thresholds of a detection, under torchvision's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Lowest score, 0 to 1.
    pub score_thresh: f32,
    /// IoU above which the lower-scored of two detections of a class goes.
    pub nms_thresh: f64,
}

/// Facts about a model, which clients can ask for and requests are checked against.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Its name, such as that of its file.
    pub name: String,
    /// Where it is computed, such as `cuda:1`.
    pub device: String,
    /// Its configuration.
    pub config: FasterRcnnConfig,
}

impl ModelInfo {
    /// Thresholds where a request gives none.
    pub(crate) fn thresholds(&self) -> Thresholds {
        Thresholds {
            score_thresh: self.config.roi_heads.score_thresh,
            nms_thresh: self.config.roi_heads.nms_thresh,
        }
    }

    /// Size of the padded batch of an image by itself. Only images that have it in common are computed
    /// together: more padding would change what is found near the borders.
    pub(crate) fn padded_size(&self, image: Size) -> Size {
        let transform = &self.config.transform;
        transform.pad(transform.resized(image))
    }

    /// The answer to `GET /model`.
    pub(crate) fn to_json(&self) -> Value {
        let (config, roi_heads) = (&self.config, &self.config.roi_heads);
        let keypoint = roi_heads.keypoint.as_ref();
        json!({
            "name": self.name,
            "device": self.device,
            "backbone": config.backbone.to_string(),
            "num_classes": config.num_classes,
            "class_names": config.class_names,
            "masks": roi_heads.mask.is_some(),
            "keypoints": keypoint.map(|keypoint| json!({
                "count": keypoint.num_keypoints,
                "names": keypoint.names,
                "skeleton": keypoint.skeleton,
            })),
            "score_thresh": decimal(roi_heads.score_thresh),
            "nms_thresh": roi_heads.nms_thresh,
            "detections_per_img": roi_heads.detections_per_img,
            "min_size": config.transform.min_size,
            "max_size": config.transform.max_size,
        })
    }
}

type Detect = dyn Fn(&[&RgbImage], Thresholds) -> Result<Vec<Instances>, DetectError> + Send + Sync;

/// A model that is ready to detect.
pub struct Detector {
    pub(crate) info: ModelInfo,
    /// Batches that are computed at the same time.
    pub(crate) concurrent: usize,
    pub(crate) detect: Box<Detect>,
}

impl Detector {
    /// Serves a model, after a first detection in an empty picture, which prepares the device.
    ///
    /// # Errors
    /// When that detection fails.
    pub fn new<B: DetectionBackend>(
        name: &str,
        device_name: &str,
        model: StandardFasterRcnn<B>,
        device: B::Device,
    ) -> Result<Self, DetectError> {
        let info = ModelInfo {
            name: name.to_string(),
            device: device_name.to_string(),
            config: model.config(),
        };
        let default = info.thresholds();
        let concurrent = Batching::new::<B>(&model.transform).concurrent();
        let detector = Self::from_fn(info, move |pictures, thresholds| {
            let tensors = pictures.iter().map(|image| to_tensor::<B>(image, &device));
            let tensors: Vec<_> = tensors.collect();
            if thresholds == default {
                return model.detect(&tensors);
            }
            // It shares its weights.
            let mut model = model.clone();
            model.roi_heads.config.score_thresh = thresholds.score_thresh;
            model.roi_heads.config.nms_thresh = thresholds.nms_thresh;
            model.detect(&tensors)
        });
        (detector.detect)(&[&RgbImage::new(64, 64)], default)?;
        Ok(Self {
            concurrent,
            ..detector
        })
    }

    /// Serves whatever finds objects in pictures: for each picture its [`Instances`], in order of their scores.
    pub fn from_fn(
        info: ModelInfo,
        detect: impl Fn(&[&RgbImage], Thresholds) -> Result<Vec<Instances>, DetectError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            info,
            concurrent: 1,
            detect: Box::new(detect),
        }
    }
}
