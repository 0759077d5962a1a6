//! Which detections are kept.

use std::str::FromStr;

use clap::Args;
use rcnn_burn::FasterRcnnConfig;
use rcnn_burn::roi::NmsMethod;

/// Which detections are kept, other than the model says.
#[derive(Args)]
pub(crate) struct ThresholdArgs {
    /// Lowest score of a detection, 0 to 1 [default: the model's; torchvision's is 0.05]
    #[arg(long, value_name = "F", value_parser = unit::<f32>)]
    score_thresh: Option<f32>,
    /// IoU above which the lower-scored of two detections of a class is dropped [default: the model's;
    /// torchvision's is 0.5]
    #[arg(long, value_name = "F", value_parser = unit::<f32>, hide_short_help = true)]
    nms_thresh: Option<f32>,
    /// Let detections of different classes suppress each other
    #[arg(long, hide_short_help = true)]
    class_agnostic_nms: bool,
    /// Lower the scores of overlapped detections instead of dropping them (Gaussian Soft-NMS)
    #[arg(long, hide_short_help = true)]
    soft_nms: bool,
    /// Maximum number of detections per image [default: the model's; torchvision's is 100]
    #[arg(long, value_name = "N", hide_short_help = true)]
    detections_per_img: Option<usize>,
}

/// A number from 0 to 1, for clap.
pub(crate) fn unit<F: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<F, String> {
    match text.parse() {
        Ok(value) if (F::from(0)..=F::from(1)).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".to_string()),
    }
}

impl ThresholdArgs {
    pub(crate) fn apply(&self, config: &mut FasterRcnnConfig) {
        let roi_heads = &mut config.roi_heads;
        if let Some(score_thresh) = self.score_thresh {
            roi_heads.score_thresh = score_thresh;
        }
        if let Some(nms_thresh) = self.nms_thresh {
            roi_heads.nms_thresh = f64::from(nms_thresh);
        }
        if let Some(most) = self.detections_per_img {
            roi_heads.detections_per_img = most;
        }
        roi_heads.nms_class_agnostic |= self.class_agnostic_nms;
        if self.soft_nms {
            roi_heads.nms_method = NmsMethod::SoftGaussian { sigma: 0.5 };
        }
    }
}
