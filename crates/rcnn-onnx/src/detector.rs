//! A whole detector in ONNX operators: the recorded networks, and by hand what lies between them.

use rcnn_backbone::LevelSpec;
use rcnn_detector::FasterRcnnConfig;
use rcnn_ops::BoxRules;
use rcnn_roi::{MultiScaleRoiAlign, NmsMethod};

use crate::boxes::{
    Best, Layout, OUT, anchors, best, best_of_groups, by_order, clip, decode, eligible, min_side,
    nms, only_at, out_unless, pick, shorter_side,
};
use crate::builder::{Builder, Value};
use crate::error::OnnxError;
use crate::keypoints::keypoints;
use crate::options::{OnnxInput, OnnxOptions, OnnxPart};
use crate::pool::{Pooled, pool};
use crate::proto::{Attribute, ElementType};
use crate::transform::{Batch, image_input, normalised_input, tensor_input};
use crate::translate::Translator;

/// Name of the free number of detections.
const FREE: &[&str] = &["detections"];

/// Boxes of all images, and what they were chosen by.
struct Boxes {
    /// `[K, 4]`
    boxes: Value,
    found: Best,
}

/// Feature maps with their levels, finest first.
type Maps<'a> = Vec<(&'a LevelSpec, Value)>;

pub(crate) struct Detector<'a> {
    pub(crate) config: &'a FasterRcnnConfig,
    pub(crate) options: &'a OnnxOptions,
    pub(crate) levels: &'a [LevelSpec],
    pub(crate) networks: Translator<'a>,
    pub(crate) b: Builder<'a>,
}

impl<'a> Detector<'a> {
    /// Builds the graph with its inputs and outputs.
    pub(crate) fn build(&mut self) -> Result<(), OnnxError> {
        let (transform, fixed) = (&self.config.transform, self.options.fixed);
        if self.options.part == OnnxPart::Body {
            let images = normalised_input(transform, fixed, &mut self.b);
            return self.body(images);
        }
        self.check()?;
        let batch = match self.options.input {
            OnnxInput::Tensor => tensor_input(transform, fixed, &mut self.b),
            OnnxInput::Image => image_input(transform, fixed, &mut self.b),
        };
        let maps = self.maps(batch.images.clone())?;
        let proposals = self.proposals(&batch, &maps)?;
        let (detections, labels) = self.detections(&batch, &maps, &proposals)?;
        self.outputs(&batch, &detections, &labels);
        self.masks(&batch, &maps, &detections, &labels)?;
        self.keypoints(&batch, &maps, &detections)
    }

    /// Rejects what has no form in standard operators.
    fn check(&self) -> Result<(), OnnxError> {
        let method = self.config.roi_heads.nms_method;
        match method {
            NmsMethod::Hard => Ok(()),
            _ => Err(OnnxError::Setting {
                field: "box_nms_method",
                found: serde_json::to_string(&method).unwrap_or_default(),
                expected: "hard, as ONNX has no soft suppression",
            }),
        }
    }

    fn maps(&mut self, images: Value) -> Result<Maps<'a>, OnnxError> {
        self.networks.bind("images", images);
        let mut maps = Vec::new();
        for level in self.levels {
            maps.push((level, self.network(&format!("backbone.{}", level.name))?));
        }
        Ok(maps)
    }

    /// Outputs the feature maps and what the RPN's head makes of them.
    fn body(&mut self, images: Value) -> Result<(), OnnxError> {
        for (level, map) in self.maps(images)? {
            let name = &level.name;
            let head = ["objectness", "deltas"].map(|kind| format!("rpn.{kind}.{name}"));
            let [objectness, deltas] = head.map(|name| self.network(&name));
            self.b.scope("outputs");
            let [rows, columns] = ["height", "width"].map(|side| format!("{side}_{name}"));
            let free = ["batch", rows.as_str(), columns.as_str()];
            for (kind, value) in [
                ("features", map),
                ("objectness", objectness?),
                ("deltas", deltas?),
            ] {
                self.b.output(&format!("{kind}.{name}"), &value, &free);
            }
        }
        Ok(())
    }

    fn is_padded(&self) -> bool {
        self.options.fixed.is_some()
    }

    /// An output of the recording that there must be.
    fn network(&mut self, name: &str) -> Result<Value, OnnxError> {
        let output = self.networks.output(name, &mut self.b)?;
        Ok(output.unwrap_or_else(|| unreachable!("{name} is recorded")))
    }

    fn proposals(&mut self, batch: &Batch, maps: &Maps) -> Result<Boxes, OnnxError> {
        let config = &self.config.rpn;
        let rules = config.box_rules;
        let (mut all_boxes, mut all_scores) = (Vec::new(), Vec::new());
        for (i, (level, map)) in maps.iter().enumerate() {
            let logits = self.network(&format!("rpn.objectness.{}", level.name))?;
            let deltas = self.network(&format!("rpn.deltas.{}", level.name))?;
            let b = &mut self.b;
            b.scope(format!("rpn.{}", level.name));
            let limits = b.unsqueeze(&batch.limits, &[1]);
            let anchors = anchors(&config.anchor_generator, i, map, &batch.padded, b);
            let last = |x: &Value, b: &mut Builder| b.transpose(x, &[0, 2, 3, 1]);
            let (logits, deltas) = (last(&logits, b), last(&deltas, b));
            let logits = b.reshape(&logits, &[0, -1]);
            let deltas = b.reshape(&deltas, &[0, -1, 4]);
            let [logits, index] = b.top_k(&logits, config.pre_nms_top_n_test);
            let anchors = b.gather(&anchors, &index, 0);
            let anchors = match rules {
                BoxRules::Torchvision => anchors,
                _ => clip(&anchors, &limits, b),
            };
            let index = b.unsqueeze(&index, &[2]);
            let by_image = [Attribute::Int("batch_dims", 1)];
            let deltas = b.node("GatherND", &[&deltas, &index], &by_image);
            let operands = [&deltas, &anchors, &limits];
            let boxes = decode(operands, config.bbox_reg_weights, rules, b);
            let scores = b.op("Sigmoid", [&logits]);
            let min_side = min_side(rules, rcnn_rpn::MIN_SIZE);
            let good = match rules {
                BoxRules::Torchvision => "GreaterOrEqual",
                _ => "Greater",
            };
            let good = eligible(&boxes, &scores, min_side, (good, config.score_thresh), b);
            // They are in order already, which a runtime's sigmoid may round away.
            let order = by_order(&scores, b);
            let order = out_unless(&good, &order, b);
            let most = config.post_nms_top_n_test;
            let kept = nms(&boxes, &order, config.nms_thresh, most, b);
            all_scores.push(only_at(&scores, &kept, b));
            all_boxes.push(boxes);
        }
        let is_padded = self.is_padded();
        let b = &mut self.b;
        b.scope("rpn");
        let (mut boxes, scores) = (b.concat(&all_boxes, 1), b.concat(&all_scores, 1));
        let mut sides = None;
        if rules == BoxRules::Tensorflow2019 {
            let limits = b.unsqueeze(&batch.limits, &[1]);
            boxes = clip(&boxes, &limits, b);
            sides = Some(shorter_side(&boxes, b));
        }
        let most = config.post_nms_top_n_test;
        let found = best(&scores, most, sides.as_ref(), is_padded, b)?;
        let boxes = pick(&boxes, &found.image, &found.index, b);
        Ok(Boxes { boxes, found })
    }

    /// Detections with their labels.
    fn detections(
        &mut self,
        batch: &Batch,
        maps: &Maps,
        proposals: &Boxes,
    ) -> Result<(Boxes, Value), OnnxError> {
        let config = &self.config.roi_heads;
        let rules = config.box_rules;
        let objects = self.config.num_classes as i64 - 1;
        let pooled = self.pool("box", &config.box_roi_pool, batch, maps, proposals)?;
        self.networks.bind("pooled", pooled.features.clone());
        let logits = self.network("roi_heads.class_logits")?;
        let deltas = match config.box_regression {
            true => Some(self.network("roi_heads.box_regression")?),
            false => None,
        };
        let is_padded = self.is_padded();
        let b = &mut self.b;
        b.scope("roi_heads");
        // From here on, rows are those of the features.
        let [references, image] =
            [&proposals.boxes, &proposals.found.image].map(|rows| pooled.ordered(rows, b));
        let scores = b.node("Softmax", &[&logits], &[Attribute::Int("axis", 1)]);
        let scores = b.slice(&scores, 1, 1, i64::MAX);
        let references = b.unsqueeze(&references, &[1]);
        let limits = b.gather(&batch.limits, &image, 0);
        let limits = b.unsqueeze(&limits, &[1]);
        let boxes = match deltas {
            Some(deltas) => {
                let deltas = b.reshape(&deltas, &[0, objects + 1, 4]);
                let deltas = b.slice(&deltas, 1, 1, i64::MAX);
                let operands = [&deltas, &references, &limits];
                decode(operands, config.bbox_reg_weights, rules, b)
            }
            None => {
                let shape = b.ints(&[1, objects, 4]);
                b.op("Expand", [&references, &shape])
            }
        };
        let good = ("Greater", config.score_thresh);
        let min_side = min_side(rules, rcnn_roi::MIN_SIZE);
        let good = eligible(&boxes, &scores, min_side, good, b);
        let scores = out_unless(&good, &scores, b);

        // [N, proposals, classes]
        let [scores, boxes] = spread(
            &pooled,
            &proposals.found.layout,
            [&scores, &boxes],
            objects,
            b,
        );
        let by_class = b.int(objects);
        let mut kept = self.suppressed([&scores, &boxes], objects);
        let b = &mut self.b;
        let mut boxes = b.reshape(&boxes, &[0, -1, 4]);
        if rules == BoxRules::Tensorflow2019 {
            let limits = b.unsqueeze(&batch.limits, &[1]);
            boxes = clip(&boxes, &limits, b);
            let (side, zero) = (shorter_side(&boxes, b), b.float(0.0));
            let large = b.op("Greater", [&side, &zero]);
            kept = out_unless(&large, &kept, b);
        }
        let found = best(&kept, config.detections_per_img, None, is_padded, b)?;
        let class = b.op("Mod", [&found.index, &by_class]);
        let one = b.int(1);
        let labels = b.op("Add", [&class, &one]);
        let boxes = pick(&boxes, &found.image, &found.index, b);
        Ok((Boxes { boxes, found }, labels))
    }

    /// Scores `[N, proposals * classes]` of what is not suppressed, [`OUT`] elsewhere, of scores
    /// `[N, proposals, classes]` and boxes `[N, proposals, classes, 4]`.
    fn suppressed(&mut self, [scores, boxes]: [&Value; 2], classes: i64) -> Value {
        let config = &self.config.roi_heads;
        let by_class = config.detections_per_class;
        let proposals = self.config.rpn.post_nms_top_n_test;
        // As many as there may be in the end, but where more are dropped afterwards.
        let most = match config.box_rules {
            BoxRules::Tensorflow2019 => proposals,
            _ => config.detections_per_img.min(proposals),
        };
        let b = &mut self.b;
        let minus_one = b.ints(&[-1]);
        let count = b.size(scores, 1);
        let group_shape = b.concat(&[&minus_one, &count], 0);
        if config.nms_class_agnostic {
            let [flat, flat_boxes] = [(scores, &[0, -1][..]), (boxes, &[0, -1, 4])]
                .map(|(x, shape)| b.reshape(x, shape));
            let most = match (config.box_rules, by_class) {
                (BoxRules::Tensorflow2019, _) | (_, Some(_)) => proposals * classes as usize,
                _ => config.detections_per_img,
            };
            let kept = nms(&flat_boxes, &flat, config.nms_thresh, most, b);
            let kept = only_at(&flat, &kept, b);
            let Some(by_class) = by_class else {
                return kept;
            };
            let shape = b.shape(scores);
            let kept = b.op("Reshape", [&kept, &shape]);
            let grouped = b.transpose(&kept, &[0, 2, 1]);
            let turned = b.shape(&grouped);
            let grouped = b.op("Reshape", [&grouped, &group_shape]);
            let best = best_of_groups(&grouped, by_class, b);
            let best = b.op("Reshape", [&best, &turned]);
            let best = b.transpose(&best, &[0, 2, 1]);
            return b.reshape(&best, &[0, -1]);
        }
        // A group for each image and class.
        let grouped = b.transpose(boxes, &[0, 2, 1, 3]);
        let four = b.ints(&[4]);
        let shape = b.concat(&[&minus_one, &count, &four], 0);
        let grouped = b.op("Reshape", [&grouped, &shape]);
        let scores_of = b.transpose(scores, &[0, 2, 1]);
        let scores_of = b.op("Reshape", [&scores_of, &group_shape]);
        let most = by_class.unwrap_or(most).min(most);
        let kept = nms(&grouped, &scores_of, config.nms_thresh, most, b);
        let (group, proposal) = (b.column(&kept, 0), b.column(&kept, 1));
        let classes = b.int(classes);
        let image = b.op("Div", [&group, &classes]);
        let class = b.op("Mod", [&group, &classes]);
        let columns = [image, proposal, class].map(|column| b.unsqueeze(&column, &[1]));
        let places = b.concat(&[&columns[0], &columns[1], &columns[2]], 1);
        let kept = only_at(scores, &places, b);
        b.reshape(&kept, &[0, -1])
    }

    fn outputs(&mut self, batch: &Batch, detections: &Boxes, labels: &Value) {
        let b = &mut self.b;
        b.scope("outputs");
        let found = &detections.found;
        let boxes = match &batch.restore {
            Some(ratio) => b.op("Mul", [&detections.boxes, ratio]),
            None => detections.boxes.clone(),
        };
        let (boxes, scores) = (
            found.layout.output(&boxes, &[4], b),
            found.layout.output(&found.scores, &[], b),
        );
        let Layout::Padded { exists, .. } = &found.layout else {
            b.output("boxes", &boxes, FREE);
            b.output("labels", labels, FREE);
            b.output("scores", &scores, FREE);
            if self.options.input == OnnxInput::Tensor {
                b.output("image_index", &found.image, FREE);
            }
            return;
        };
        let (labels, background) = (found.layout.spread(labels, &[], 0.0, b), b.int(0));
        let labels = b.op("Where", [exists, &labels, &background]);
        let counts = b.cast(exists, ElementType::Int64);
        let counts = b.reduce("ReduceSum", &counts, &[1], false);
        b.output("boxes", &boxes, &[]);
        b.output("labels", &labels, &[]);
        b.output("scores", &scores, &[]);
        b.output("counts", &counts, &[]);
    }

    /// Makes rows `[K, ..]` of detections an output, at their places if shapes are fixed.
    fn row_output(&mut self, name: &str, rows: &Value, tail: &[usize], layout: &Layout) {
        let tail: Vec<i64> = tail.iter().map(|&size| size as i64).collect();
        let b = &mut self.b;
        let rows = layout.output(rows, &tail, b);
        b.scope("outputs");
        b.output(name, &rows, FREE);
    }

    /// Features of boxes for a branch.
    fn pool(
        &mut self,
        name: &str,
        config: &MultiScaleRoiAlign,
        batch: &Batch,
        maps: &Maps,
        Boxes { boxes, found }: &Boxes,
    ) -> Result<Pooled, OnnxError> {
        self.b.scope(format!("roi_heads.{name}_roi_pool"));
        let boxes = [boxes, &found.image];
        pool(
            config,
            self.options.pooling,
            maps,
            batch,
            boxes,
            &mut self.b,
        )
    }

    /// Pooled features and logits of the mask or the keypoint branch for each detection.
    fn branch(
        &mut self,
        name: &str,
        config: &MultiScaleRoiAlign,
        batch: &Batch,
        maps: &Maps,
        detections: &Boxes,
    ) -> Result<(Pooled, Value), OnnxError> {
        let pooled = self.pool(name, config, batch, maps, detections)?;
        let features = pooled.features.clone();
        self.networks.bind(&format!("{name}_pooled"), features);
        let logits = self.network(&format!("roi_heads.{name}_logits"))?;
        Ok((pooled, logits))
    }

    /// Probabilities of each detection's mask, if there is such a branch.
    fn masks(
        &mut self,
        batch: &Batch,
        maps: &Maps,
        detections: &Boxes,
        labels: &Value,
    ) -> Result<(), OnnxError> {
        let Some(config) = &self.config.roi_heads.mask else {
            return Ok(());
        };
        let (pooled, logits) = self.branch("mask", &config.roi_pool, batch, maps, detections)?;
        let b = &mut self.b;
        b.scope("roi_heads.masks");
        let labels = pooled.ordered(labels, b);
        let count = b.shape(&labels);
        let rows = b.range(&count);
        let own = pick(&logits, &rows, &labels, b);
        let own = b.op("Sigmoid", [&own]);
        let own = b.unsqueeze(&own, &[1]);
        let masks = pooled.restored(&own, b);
        let [height, width] = config.roi_pool.output_size.map(|side| 2 * side);
        self.row_output(
            "masks",
            &masks,
            &[1, height, width],
            &detections.found.layout,
        );
        Ok(())
    }

    /// Each detection's keypoints and their scores, if there is such a branch.
    fn keypoints(
        &mut self,
        batch: &Batch,
        maps: &Maps,
        detections: &Boxes,
    ) -> Result<(), OnnxError> {
        let Some(config) = &self.config.roi_heads.keypoint else {
            return Ok(());
        };
        let (pooled, logits) =
            self.branch("keypoint", &config.roi_pool, batch, maps, detections)?;
        let shape = self.networks.shape("roi_heads.keypoint_logits");
        let shape = shape
            .map(|shape| [shape[1], shape[3]])
            .expect("they are recorded");
        let padded = self.b.known(&batch.padded);
        let longest = padded
            .and_then(|sides| sides.into_iter().max())
            .map(|side| side as usize);
        let b = &mut self.b;
        b.scope("roi_heads.keypoints");
        let logits = pooled.restored(&logits, b);
        let [mut points, scores] = keypoints([&logits, &detections.boxes], shape, longest, b);
        if let Some(ratio) = &batch.restore {
            let ratio = b.slice(ratio, 0, 0, 2);
            let one = b.exact_floats("one", &[1], vec![1.0]);
            let ratio = b.concat(&[&ratio, &one], 0);
            points = b.op("Mul", [&points, &ratio]);
        }
        let layout = &detections.found.layout;
        self.row_output("keypoints", &points, &[shape[0], 3], layout);
        self.row_output("keypoint_scores", &scores, &[shape[0]], layout);
        Ok(())
    }
}

/// Scores `[K, classes]` and boxes `[K, classes, 4]` of pooled features, at the places `[N, most]` of their proposals.
fn spread(
    pooled: &Pooled,
    layout: &Layout,
    [scores, boxes]: [&Value; 2],
    classes: i64,
    b: &mut Builder,
) -> [Value; 2] {
    let tails: [&[i64]; 2] = [&[classes], &[classes, 4]];
    match layout {
        Layout::Found { places, shape } => {
            let places = pooled.ordered(places, b);
            let shape = shape.clone();
            let layout = Layout::Found { places, shape };
            [(scores, tails[0], OUT), (boxes, tails[1], 0.0)]
                .map(|(rows, tail, elsewhere)| layout.spread(rows, tail, elsewhere, b))
        }
        Layout::Padded { exists, .. } => {
            let [scores, boxes] = [(scores, tails[0]), (boxes, tails[1])].map(|(rows, tail)| {
                let rows = pooled.restored(rows, b);
                layout.spread(&rows, tail, OUT, b)
            });
            let exists = b.unsqueeze(exists, &[2]);
            let out = b.float(OUT);
            [b.op("Where", [&exists, &scores, &out]), boxes]
        }
    }
}
