//! A detection as a graph of its operations.

use rcnn_backbone::Backbone;
use rcnn_ops::record::{Graph, Recorder, Recording, record};
use rcnn_ops::{Forward, Phase};
use rcnn_roi::LogitBranch;
use rcnn_types::Size;
use rcnn_types::validate::require;

use crate::{DetectError, FasterRcnn, MAX_BATCH_PIXELS};

impl<N: Backbone<Recorder>> FasterRcnn<Recorder, N> {
    /// Records the networks of a detection on one image of this size, which the transform
    /// resizes first.
    ///
    /// The selection of boxes runs on the host and is not recorded. So the graph has an input for each part:
    /// `images` `[1, 3, H, W]`, resized, normalised and padded; `pooled`
    /// `[K, channels, pooled height, pooled width]`, for as many proposals as the first stage may keep; and
    /// `mask_pooled` and `keypoint_pooled`, where there are these branches, for as many detections as there
    /// may be.
    /// Its outputs are the maps `backbone.<level>`; `rpn.objectness.<level>` and `rpn.deltas.<level>`;
    /// `roi_heads.class_logits` and, where boxes are refined, `roi_heads.box_regression`;
    /// `roi_heads.mask_logits` and `roi_heads.keypoint_logits`.
    ///
    /// ```
    /// # mod rcnn_burn { pub use rcnn_detector::*; pub use rcnn_ops as ops; }
    /// use rcnn_burn::FasterRcnnConfig;
    /// use rcnn_burn::ops::record::Recorder;
    ///
    /// let model = FasterRcnnConfig::default().init::<Recorder>(&Default::default())?;
    /// let graph = model.record((480, 640).into())?;
    /// let (name, images) = graph.inputs().next().expect("an input");
    /// assert_eq!((name, &graph.tensor(images).shape[..]), ("images", &[1, 3, 800, 1088][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the configuration is invalid, the image would be resized to more than
    /// [`MAX_BATCH_PIXELS`], or the backbone's feature maps contradict its levels.
    pub fn record(&self, image_size: Size) -> Result<Graph, DetectError> {
        self.validate_config()?;
        let resized = self.transform.resized(image_size);
        let size = self.transform.pad(resized);
        let Size { height, width } = size;
        require(
            size.pixels() <= MAX_BATCH_PIXELS,
            "image_size",
            image_size,
            format_args!(
                "an image of at most {MAX_BATCH_PIXELS} pixels after resizing, not {height}x{width}"
            ),
        )?;
        self.record_batch(1, size)
    }

    /// Records the networks of a detection on a batch of this many images, resized and padded to this size, as
    /// [`record`](Self::record) does on one. `pooled` has the boxes of all images.
    ///
    /// # Errors
    /// As [`record`](Self::record), but for the limit.
    pub fn record_batch(&self, batch: usize, padded: Size) -> Result<Graph, DetectError> {
        self.validate_config()?;
        let Size { height, width } = padded;
        record(self, |recording| {
            let images = recording.input("images", [batch, 3, height, width]);
            let cx = &mut Forward::with_hook(Phase::Inference, recording);
            let features = self.feature_maps(images, cx)?;
            let head = self.rpn.head.forward(&features, &mut cx.scope("rpn.head"));
            let (mut channels, mut proposals) = (0, 0);
            let outputs = head.objectness.iter().zip(&head.deltas);
            for ((level, map), (objectness, deltas)) in features.iter().zip(outputs) {
                recording.output(format!("backbone.{level}"), map);
                recording.output(format!("rpn.objectness.{level}"), objectness);
                recording.output(format!("rpn.deltas.{level}"), deltas);
                channels = map.dims()[1];
                let anchors = objectness.shape().num_elements();
                proposals += anchors.min(self.rpn.config.pre_nms_top_n_test);
            }
            let rois = proposals.min(self.rpn.config.post_nms_top_n_test);
            let [height, width] = self.roi_heads.config.box_roi_pool.output_size;
            let pooled = recording.input("pooled", [batch * rois, channels, height, width]);
            let cx = &mut Forward::with_hook(Phase::Inference, recording);
            let found = self
                .roi_heads
                .box_branch()
                .predict(pooled, &mut cx.scope("roi_heads"));
            recording.output("roi_heads.class_logits", &found.class_logits);
            if let Some(deltas) = &found.box_regression {
                recording.output("roi_heads.box_regression", deltas);
            }
            let most = rois * (self.num_classes() - 1);
            let detections = batch * self.roi_heads.config.detections_per_img.min(most);
            let boxes = [detections, channels];
            if let Some(branch) = self.roi_heads.mask_branch() {
                record_branch(recording, &branch, boxes);
            }
            if let Some(branch) = self.roi_heads.keypoint_branch() {
                record_branch(recording, &branch, boxes);
            }
            Ok(())
        })
    }
}

/// Records a branch for that many boxes with features of that many channels.
fn record_branch<L: LogitBranch<Recorder>>(
    recording: &mut Recording,
    branch: &L,
    [boxes, channels]: [usize; 2],
) {
    let [height, width] = branch.roi_pool().output_size;
    let shape = [boxes, channels, height, width];
    let pooled = recording.input(&format!("{}_pooled", L::NAME), shape);
    let cx = &mut Forward::with_hook(Phase::Inference, recording);
    let logits = branch.predict(pooled, &mut cx.scope("roi_heads"));
    recording.output(format!("roi_heads.{}_logits", L::NAME), &logits);
}

#[cfg(test)]
mod tests;
