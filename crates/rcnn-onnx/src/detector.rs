//! A whole detector in ONNX operators: the recorded networks, and by hand what lies between them.

use rcnn_backbone::LevelSpec;
use rcnn_detector::FasterRcnnConfig;
use rcnn_roi::{MultiScaleRoiAlign, NmsMethod};

use crate::boxes::{
    Best, OUT, Pooled, anchors, best, decode, eligible, nms, only_at, pick, roi_align, scatter,
};
use crate::builder::{Builder, Value};
use crate::error::OnnxError;
use crate::proto::{Attribute, Dimension, ElementType, Message, value_info};
use crate::translate::Translator;

/// torchvision's least sides of a proposal and a detection, in pixels.
const MIN_PROPOSAL: f32 = 1e-3;
const MIN_DETECTION: f32 = 1e-2;

/// The batch as the networks take it.
struct Batch {
    /// `[N, 3, H, W]`, normalised and padded.
    images: Value,
    /// `[2]`: height and width, padded.
    padded: Value,
    /// `[N, 4]`: width, height, width, height of each image.
    limits: Value,
    /// Height of the highest image.
    height: Value,
}

/// Boxes of all images.
struct Boxes {
    /// `[K, 4]`
    boxes: Value,
    /// `[K]`
    image: Value,
}

pub(crate) struct Detector<'a> {
    pub(crate) config: &'a FasterRcnnConfig,
    pub(crate) levels: &'a [LevelSpec],
    pub(crate) networks: Translator<'a>,
    pub(crate) b: Builder,
}

impl<'a> Detector<'a> {
    /// Builds the graph: its inputs and outputs, encoded.
    pub(crate) fn build(&mut self) -> Result<Message, OnnxError> {
        self.check()?;
        let images = self.b.reserve("images");
        let sizes = self.b.reserve("image_sizes");
        let batch = self.transform(&images, &sizes);
        self.networks.bind("images", batch.images.clone());
        let mut maps = Vec::new();
        for level in self.levels {
            let name = format!("backbone.{}", level.name);
            maps.push((level, self.network(&name)?));
        }
        let (proposals, found) = self.proposals(&batch, &maps)?;
        let (detections, labels, scores) = self.detections(&batch, &maps, &proposals, &found)?;
        self.b.scope("outputs");
        for (name, value) in [
            ("boxes", &detections.boxes),
            ("labels", &labels),
            ("scores", &scores),
            ("image_index", &detections.image),
        ] {
            self.b.output(name, value);
        }
        let masks = self.masks(&batch, &maps, &detections, &labels)?;
        let keypoints = self.keypoints(&batch, &maps, &detections)?;

        use Dimension::{Fixed, Free};
        let (float, int) = (ElementType::Float, ElementType::Int64);
        let batch = [Free("batch"), Fixed(3), Free("height"), Free("width")];
        let sizes = [Free("sizes"), Fixed(2)];
        let count = Free("detections");
        let mut outputs = vec![
            value_info("boxes", float, &[count.clone(), Fixed(4)]),
            value_info("labels", int, std::slice::from_ref(&count)),
            value_info("scores", float, std::slice::from_ref(&count)),
            value_info("image_index", int, std::slice::from_ref(&count)),
        ];
        if let Some([height, width]) = masks {
            let shape = [count.clone(), Fixed(1), Fixed(height), Fixed(width)];
            outputs.push(value_info("masks", float, &shape));
        }
        if let Some([points, height, width]) = keypoints {
            let shape = [count, Fixed(points), Fixed(height), Fixed(width)];
            outputs.push(value_info("keypoint_logits", float, &shape));
        }
        let graph = Message::default().text(2, "detector");
        let graph = graph.message(11, &value_info("images", float, &batch));
        let graph = graph.message(11, &value_info("image_sizes", int, &sizes));
        Ok(outputs
            .iter()
            .fold(graph, |graph, output| graph.message(12, output)))
    }

    /// Rejects what has no form in standard operators.
    fn check(&self) -> Result<(), OnnxError> {
        let method = self.config.roi_heads.nms_method;
        match method {
            NmsMethod::Hard => Ok(()),
            _ => Err(OnnxError::Setting {
                field: "box_nms_method",
                found: format!("{method:?}"),
                expected: "hard, as ONNX has no soft suppression",
            }),
        }
    }

    /// An output of the recording that there must be.
    fn network(&mut self, name: &str) -> Result<Value, OnnxError> {
        let output = self.networks.output(name, &mut self.b)?;
        Ok(output.unwrap_or_else(|| unreachable!("{name} is recorded")))
    }

    /// Normalises, clears what is outside of the images and pads.
    fn transform(&mut self, images: &Value, image_sizes: &Value) -> Batch {
        let transform = &self.config.transform;
        let b = &mut self.b;
        b.scope("transform");
        b.default_of(image_sizes, &[1, 2], &[0, 0]);
        let shape = b.shape(images);
        let (count, size) = (b.slice(&shape, 0, 0, 1), b.slice(&shape, 0, 2, 4));
        let zero = b.int(0);
        let given = b.op("Greater", [image_sizes, &zero]);
        let sizes = b.op("Where", [&given, image_sizes, &size]);
        let sizes = b.op("Min", [&sizes, &size]);
        let two = b.ints(&[2]);
        let of_each = b.concat(&[&count, &two], 0);
        let sizes = b.op("Expand", [&sizes, &of_each]);

        let [mean, std] = [
            ("image_mean", transform.image_mean),
            ("image_std", transform.image_std),
        ]
        .map(|(name, values)| b.floats(name, &[1, 3, 1, 1], values.to_vec()));
        let centred = b.op("Sub", [images, &mean]);
        let normalised = b.op("Div", [&centred, &std]);
        // [N, 1, H, W]: whether a pixel is one of the image.
        let [rows, columns] = [0, 1].map(|axis| {
            let side = b.slice(&size, 0, axis, axis + 1);
            let index = b.range(&side);
            let index = b.unsqueeze(&index, if axis == 0 { &[0, 1, 3] } else { &[0, 1, 2] });
            let end = b.slice(&sizes, 1, axis, axis + 1);
            let end = b.unsqueeze(&end, &[2, 3]);
            b.op("Less", [&index, &end])
        });
        let inside = b.op("And", [&rows, &columns]);
        let nothing = b.float(0.0);
        let cleared = b.op("Where", [&inside, &normalised, &nothing]);

        let divisor = b.ints(&[transform.size_divisible as i64]);
        let negative = b.op("Neg", [&size]);
        let missing = b.op("Mod", [&negative, &divisor]);
        let none = b.ints(&[0; 6]);
        let pads = b.concat(&[&none, &missing], 0);
        let images = b.op("Pad", [&cleared, &pads]);
        let padded = b.op("Add", [&size, &missing]);

        let sizes = b.cast(&sizes, ElementType::Float);
        let order = b.ints(&[1, 0, 1, 0]);
        let heights = b.column(&sizes, 0);
        Batch {
            images,
            padded,
            limits: b.gather(&sizes, &order, 1),
            height: b.node("ReduceMax", &[&heights], &[Attribute::Int("keepdims", 0)]),
        }
    }

    fn proposals(
        &mut self,
        batch: &Batch,
        maps: &[(&LevelSpec, Value)],
    ) -> Result<(Boxes, Best), OnnxError> {
        let config = &self.config.rpn;
        let (mut all_boxes, mut all_scores) = (Vec::new(), Vec::new());
        for (i, (level, map)) in maps.iter().enumerate() {
            let logits = self.network(&format!("rpn.objectness.{}", level.name))?;
            let deltas = self.network(&format!("rpn.deltas.{}", level.name))?;
            let b = &mut self.b;
            b.scope(format!("rpn.{}", level.name));
            let anchors = anchors(&config.anchor_generator, i, map, &batch.padded, b);
            let last = |x: &Value, b: &mut Builder| b.transpose(x, &[0, 2, 3, 1]);
            let (logits, deltas) = (last(&logits, b), last(&deltas, b));
            let logits = b.reshape(&logits, &[0, -1]);
            let deltas = b.reshape(&deltas, &[0, -1, 4]);
            let [logits, index] = b.top_k(&logits, config.pre_nms_top_n_test);
            let anchors = b.gather(&anchors, &index, 0);
            let index = b.unsqueeze(&index, &[2]);
            let by_image = [Attribute::Int("batch_dims", 1)];
            let deltas = b.node("GatherND", &[&deltas, &index], &by_image);
            let limits = b.unsqueeze(&batch.limits, &[1]);
            let boxes = decode(&deltas, &anchors, [1.0; 4], &limits, b);
            let scores = b.op("Sigmoid", [&logits]);
            let good = ("GreaterOrEqual", config.score_thresh);
            let scores = eligible(&boxes, &scores, MIN_PROPOSAL, good, b);
            let most = config.post_nms_top_n_test;
            let kept = nms(&boxes, &scores, config.nms_thresh, most, b);
            all_scores.push(only_at(&scores, &kept, b));
            all_boxes.push(boxes);
        }
        let b = &mut self.b;
        b.scope("rpn");
        let joined = |parts: &[Value], b: &mut Builder| {
            let parts: Vec<&Value> = parts.iter().collect();
            b.concat(&parts, 1)
        };
        let (boxes, scores) = (joined(&all_boxes, b), joined(&all_scores, b));
        let found = best(&scores, config.post_nms_top_n_test, b);
        let boxes = pick(&boxes, &found.image, &found.index, b);
        let image = found.image.clone();
        Ok((Boxes { boxes, image }, found))
    }

    /// Detections with their labels and scores, image after image and best first.
    fn detections(
        &mut self,
        batch: &Batch,
        maps: &[(&LevelSpec, Value)],
        proposals: &Boxes,
        found: &Best,
    ) -> Result<(Boxes, Value, Value), OnnxError> {
        let config = &self.config.roi_heads;
        let objects = self.config.num_classes as i64 - 1;
        self.b.scope("roi_heads.box_roi_pool");
        let pooled = roi_align(
            &config.box_roi_pool,
            maps,
            &proposals.boxes,
            &proposals.image,
            &batch.height,
            &mut self.b,
        );
        self.networks.bind("pooled", pooled.features.clone());
        let logits = self.network("roi_heads.class_logits")?;
        let deltas = match config.box_regression {
            true => Some(self.network("roi_heads.box_regression")?),
            false => None,
        };
        let b = &mut self.b;
        b.scope("roi_heads");
        // From here on, rows are those of the features.
        let [references, image, places] =
            [&proposals.boxes, &proposals.image, &found.places].map(|rows| pooled.ordered(rows, b));
        let scores = b.node("Softmax", &[&logits], &[Attribute::Int("axis", 1)]);
        let scores = b.slice(&scores, 1, 1, i64::MAX);
        let references = b.unsqueeze(&references, &[1]);
        let limits = b.gather(&batch.limits, &image, 0);
        let limits = b.unsqueeze(&limits, &[1]);
        let boxes = match deltas {
            Some(deltas) => {
                let deltas = b.reshape(&deltas, &[0, objects + 1, 4]);
                let deltas = b.slice(&deltas, 1, 1, i64::MAX);
                decode(&deltas, &references, config.bbox_reg_weights, &limits, b)
            }
            None => {
                let shape = b.ints(&[1, objects, 4]);
                b.op("Expand", [&references, &shape])
            }
        };
        let good = ("Greater", config.score_thresh);
        let scores = eligible(&boxes, &scores, MIN_DETECTION, good, b);

        // [N, proposals, classes]: the rows at their places.
        let count = b.size(&batch.limits, 0);
        let classes = b.ints(&[objects]);
        let shape = b.concat(&[&count, &found.most, &classes], 0);
        let scores = scatter(OUT, &shape, &places, &scores, b);
        let four = b.ints(&[4]);
        let shape = b.concat(&[&shape, &four], 0);
        let boxes = scatter(0.0, &shape, &places, &boxes, b);
        let flat_boxes = b.reshape(&boxes, &[0, -1, 4]);
        let most = config.detections_per_img;
        let by_class = b.int(objects);
        let kept = if config.nms_class_agnostic {
            let flat = b.reshape(&scores, &[0, -1]);
            let kept = nms(&flat_boxes, &flat, config.nms_thresh, most, b);
            only_at(&flat, &kept, b)
        } else {
            // A group for each image and class.
            let grouped = b.transpose(&boxes, &[0, 2, 1, 3]);
            let minus_one = b.ints(&[-1]);
            let shape = b.concat(&[&minus_one, &found.most, &four], 0);
            let grouped = b.op("Reshape", [&grouped, &shape]);
            let scores_of = b.transpose(&scores, &[0, 2, 1]);
            let shape = b.concat(&[&minus_one, &found.most], 0);
            let scores_of = b.op("Reshape", [&scores_of, &shape]);
            let kept = nms(&grouped, &scores_of, config.nms_thresh, most, b);
            let (group, proposal) = (b.column(&kept, 0), b.column(&kept, 1));
            let image = b.op("Div", [&group, &by_class]);
            let class = b.op("Mod", [&group, &by_class]);
            let columns = [image, proposal, class].map(|column| b.unsqueeze(&column, &[1]));
            let places = b.concat(&[&columns[0], &columns[1], &columns[2]], 1);
            let kept = only_at(&scores, &places, b);
            b.reshape(&kept, &[0, -1])
        };
        let found = best(&kept, most, b);
        let class = b.op("Mod", [&found.index, &by_class]);
        let one = b.int(1);
        let labels = b.op("Add", [&class, &one]);
        let boxes = pick(&flat_boxes, &found.image, &found.index, b);
        let image = found.image;
        Ok((Boxes { boxes, image }, labels, found.scores))
    }

    /// Pooled features and logits of the mask or the keypoint branch for each detection.
    fn branch(
        &mut self,
        name: &str,
        pool: &MultiScaleRoiAlign,
        batch: &Batch,
        maps: &[(&LevelSpec, Value)],
        Boxes { boxes, image }: &Boxes,
    ) -> Result<(Pooled, Value), OnnxError> {
        self.b.scope(format!("roi_heads.{name}_roi_pool"));
        let pooled = roi_align(pool, maps, boxes, image, &batch.height, &mut self.b);
        let features = pooled.features.clone();
        self.networks.bind(&format!("{name}_pooled"), features);
        let logits = self.network(&format!("roi_heads.{name}_logits"))?;
        Ok((pooled, logits))
    }

    /// Probabilities of each detection's mask; gives their size, if there is such a branch.
    fn masks(
        &mut self,
        batch: &Batch,
        maps: &[(&LevelSpec, Value)],
        detections: &Boxes,
        labels: &Value,
    ) -> Result<Option<[usize; 2]>, OnnxError> {
        let Some(config) = &self.config.roi_heads.mask else {
            return Ok(None);
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
        b.output("masks", &masks);
        Ok(Some(config.roi_pool.output_size.map(|side| 2 * side)))
    }

    /// Heat maps of each detection's keypoints; gives their shape, if there is such a branch.
    fn keypoints(
        &mut self,
        batch: &Batch,
        maps: &[(&LevelSpec, Value)],
        detections: &Boxes,
    ) -> Result<Option<[usize; 3]>, OnnxError> {
        let Some(config) = &self.config.roi_heads.keypoint else {
            return Ok(None);
        };
        let (pooled, logits) =
            self.branch("keypoint", &config.roi_pool, batch, maps, detections)?;
        let b = &mut self.b;
        b.scope("roi_heads.keypoints");
        let logits = pooled.restored(&logits, b);
        b.output("keypoint_logits", &logits);
        let shape = self.networks.shape("roi_heads.keypoint_logits");
        Ok(shape.map(|shape| [shape[1], shape[2], shape[3]]))
    }
}
