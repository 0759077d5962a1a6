//! Boxes in ONNX operators: anchors, decoding, clipping, suppression, RoIAlign over levels.

use rcnn_backbone::LevelSpec;
use rcnn_roi::MultiScaleRoiAlign;
use rcnn_rpn::AnchorGenerator;

use crate::builder::{Builder, Value};
use crate::proto::{Attribute, ElementType};

/// Score of what takes no part; those that do have 0 or more.
pub(crate) const OUT: f32 = -1.0;
/// Between the two.
const LIMIT: f32 = -0.5;

/// The anchors of a feature map, `[locations * anchors, 4]`.
///
/// `padded` is the size of the batch, `[2]`.
pub(crate) fn anchors(
    generator: &AnchorGenerator,
    level: usize,
    map: &Value,
    padded: &Value,
    b: &mut Builder,
) -> Value {
    let shape = b.shape(map);
    let grid = b.slice(&shape, 0, 2, 4);
    let stride = b.op("Div", [padded, &grid]);
    let [y, x] = [0, 1].map(|axis| {
        let (count, step) = (
            b.slice(&grid, 0, axis, axis + 1),
            b.slice(&stride, 0, axis, axis + 1),
        );
        let index = b.range(&count);
        let place = b.op("Mul", [&index, &step]);
        b.cast(&place, ElementType::Float)
    });
    let y = b.unsqueeze(&y, &[1, 2, 3]);
    let x = b.unsqueeze(&x, &[0, 2, 3]);
    let vertical = b.floats("vertical", &[4], vec![0.0, 1.0, 0.0, 1.0]);
    let horizontal = b.floats("horizontal", &[4], vec![1.0, 0.0, 1.0, 0.0]);
    let (y, x) = (b.op("Mul", [&y, &vertical]), b.op("Mul", [&x, &horizontal]));
    let cell = generator.cell_anchors(level);
    let name = format!("cell_anchors.{level}");
    let cell = b.floats(&name, &[cell.len(), 4], cell.concat());
    let row = b.op("Add", [&x, &cell]);
    let grid = b.op("Add", [&y, &row]);
    b.reshape(&grid, &[-1, 4])
}

/// Left upper and right lower corners of boxes `[.., 4]`.
fn corners(boxes: &Value, axis: i64, b: &mut Builder) -> [Value; 2] {
    [0, 2].map(|start| b.slice(boxes, axis, start, start + 2))
}

/// Boxes from deltas and references, clipped: all `[.., .., 4]` that broadcast.
pub(crate) fn decode(
    deltas: &Value,
    references: &Value,
    weights: [f32; 4],
    limits: &Value,
    b: &mut Builder,
) -> Value {
    const MAX_LOG: f32 = 4.135_166_6;
    let [low, high] = corners(references, 2, b);
    let size = b.op("Sub", [&high, &low]);
    let half = b.float(0.5);
    let half_size = b.op("Mul", [&size, &half]);
    let center = b.op("Add", [&low, &half_size]);
    let deltas = match weights {
        [1.0, 1.0, 1.0, 1.0] => deltas.clone(),
        _ => {
            let weights = b.floats("bbox_reg_weights", &[4], weights.to_vec());
            b.op("Div", [deltas, &weights])
        }
    };
    let [shift, scale] = corners(&deltas, 2, b);
    let shift = b.op("Mul", [&shift, &size]);
    let center = b.op("Add", [&shift, &center]);
    let most = b.float(MAX_LOG);
    let scale = b.op("Min", [&scale, &most]);
    let scale = b.op("Exp", [&scale]);
    let size = b.op("Mul", [&scale, &size]);
    let half_size = b.op("Mul", [&size, &half]);
    let low = b.op("Sub", [&center, &half_size]);
    let high = b.op("Add", [&center, &half_size]);
    let boxes = b.concat(&[&low, &high], 2);
    let zero = b.float(0.0);
    let boxes = b.op("Max", [&boxes, &zero]);
    b.op("Min", [&boxes, limits])
}

/// Scores, replaced by [`OUT`] where the box is too small or the score too low.
///
/// # Shapes
/// - boxes `[.., .., 4]`, scores `[.., ..]`
pub(crate) fn eligible(
    boxes: &Value,
    scores: &Value,
    min_size: f32,
    (comparison, threshold): (&str, f32),
    b: &mut Builder,
) -> Value {
    let [low, high] = corners(boxes, 2, b);
    let size = b.op("Sub", [&high, &low]);
    let axes = [
        Attribute::Ints("axes", vec![2]),
        Attribute::Int("keepdims", 0),
    ];
    let side = b.node("ReduceMin", &[&size], &axes);
    let (min_size, threshold, out) = (b.float(min_size), b.float(threshold), b.float(OUT));
    let large = b.op("GreaterOrEqual", [&side, &min_size]);
    let good = b.op(comparison, [scores, &threshold]);
    let both = b.op("And", [&large, &good]);
    b.op("Where", [&both, scores, &out])
}

/// Kept boxes of groups, `[kept, 2]`: group and index in it. At most that many of a group.
///
/// # Shapes
/// - boxes `[groups, boxes, 4]`, scores `[groups, boxes]`
pub(crate) fn nms(
    boxes: &Value,
    scores: &Value,
    iou_threshold: f64,
    most: usize,
    b: &mut Builder,
) -> Value {
    let scores = b.unsqueeze(scores, &[1]);
    let most = b.ints(&[most as i64]);
    let iou = b.floats("nms_thresh", &[1], vec![iou_threshold as f32]);
    let limit = b.floats("eligible", &[1], vec![LIMIT]);
    let kept = b.op("NonMaxSuppression", [boxes, &scores, &most, &iou, &limit]);
    let columns = b.ints(&[0, 2]);
    b.gather(&kept, &columns, 1)
}

/// The scores at these places, [`OUT`] elsewhere.
pub(crate) fn only_at(scores: &Value, places: &Value, b: &mut Builder) -> Value {
    let values = b.op("GatherND", [scores, places]);
    let shape = b.shape(scores);
    scatter(OUT, &shape, places, &values, b)
}

/// A tensor of a shape that holds values at some places and one number elsewhere.
pub(crate) fn scatter(
    elsewhere: f32,
    shape: &Value,
    places: &Value,
    values: &Value,
    b: &mut Builder,
) -> Value {
    let elsewhere = b.float(elsewhere);
    let all = b.op("Expand", [&elsewhere, shape]);
    b.op("ScatterND", [&all, places, values])
}

/// The best of each image.
pub(crate) struct Best {
    /// `[count, 2]`: image, and rank in it.
    pub(crate) places: Value,
    /// `[count]`: the image.
    pub(crate) image: Value,
    /// `[count]`: column of the scores.
    pub(crate) index: Value,
    /// `[count]`
    pub(crate) scores: Value,
    /// `[1]`: places that there are for an image.
    pub(crate) most: Value,
}

/// The highest scores of each row that are not [`OUT`], image after image and best first.
pub(crate) fn best(scores: &Value, most: usize, b: &mut Builder) -> Best {
    let [values, indices] = b.top_k(scores, most);
    let limit = b.float(LIMIT);
    let is_in = b.op("Greater", [&values, &limit]);
    let places = b.places(&is_in);
    Best {
        image: b.column(&places, 0),
        index: b.op("GatherND", [&indices, &places]),
        scores: b.op("GatherND", [&values, &places]),
        most: b.size(&values, 1),
        places,
    }
}

/// Elements `[image[i], index[i]]` of a tensor.
pub(crate) fn pick(x: &Value, image: &Value, index: &Value, b: &mut Builder) -> Value {
    let [image, index] = [image, index].map(|column| b.unsqueeze(column, &[1]));
    let places = b.concat(&[&image, &index], 1);
    b.op("GatherND", [x, &places])
}

/// Features of boxes, in an order of their own.
pub(crate) struct Pooled {
    /// `[K, channels, height, width]`
    pub(crate) features: Value,
    /// `[K]`: which box each row is of; `None` where they are in order.
    pub(crate) order: Option<Value>,
}

impl Pooled {
    /// Rows of a tensor in the order of the features.
    pub(crate) fn ordered(&self, x: &Value, b: &mut Builder) -> Value {
        match &self.order {
            Some(order) => b.gather(x, order, 0),
            None => x.clone(),
        }
    }

    /// Rows that are in the order of the features, in that of the boxes.
    pub(crate) fn restored(&self, x: &Value, b: &mut Builder) -> Value {
        let Some(order) = &self.order else {
            return x.clone();
        };
        let count = b.shape(order);
        let rows = b.range(&count);
        let back = b.op("ScatterElements", [&rows, order, &rows]);
        b.gather(x, &back, 0)
    }
}

/// log2 of a stride, rounded.
fn log_stride(level: &LevelSpec) -> i32 {
    (level.stride as f32).log2().round() as i32
}

fn log2(x: &Value, b: &mut Builder) -> Value {
    let x = b.op("Log", [x]);
    let ln2 = b.float(std::f32::consts::LN_2);
    b.op("Div", [&x, &ln2])
}

/// RoIAlign, each box from the level that fits its size.
///
/// # Shapes
/// - maps: `[N, channels, H, W]` of each level, finest first
/// - boxes `[K, 4]`, image `[K]`
/// - height: that of the largest image
pub(crate) fn roi_align(
    pool: &MultiScaleRoiAlign,
    maps: &[(&LevelSpec, Value)],
    boxes: &Value,
    image: &Value,
    height: &Value,
    b: &mut Builder,
) -> Pooled {
    let maps: Vec<_> = (maps.iter())
        .filter(|(level, _)| pool.featmap_names.contains(&level.name))
        .collect();
    let strides: Vec<i32> = maps.iter().map(|(level, _)| log_stride(level)).collect();
    let (first, last) = (strides[0], strides[strides.len() - 1].max(strides[0]));

    // torchvision infers the scale from the images, which are smaller than the padded batch.
    let rows = b.size(&maps[0].1, 2);
    let rows = b.squeeze(&rows, 0);
    let rows = b.cast(&rows, ElementType::Float);
    let scale = b.op("Div", [&rows, height]);
    let scale = log2(&scale, b);
    let scale = b.op("Round", [&scale]);
    let two = b.float(2.0);
    let scales: Vec<Value> = (strides.iter())
        .map(|stride| {
            let coarser = b.float((stride - first) as f32);
            let scale = b.op("Sub", [&scale, &coarser]);
            b.op("Pow", [&two, &scale])
        })
        .collect();
    let aligned = |level: usize, boxes: &Value, image: &Value, b: &mut Builder| {
        let boxes = b.op("Mul", [boxes, &scales[level]]);
        // At least one location wide, which runtimes disagree about.
        let [low, high] = corners(&boxes, 1, b);
        let one = b.float(1.0);
        let least = b.op("Add", [&low, &one]);
        let high = b.op("Max", [&high, &least]);
        let boxes = b.concat(&[&low, &high], 1);
        let [height, width] = pool.output_size;
        let attributes = [
            Attribute::Text("mode", "avg"),
            Attribute::Int("output_height", height as i64),
            Attribute::Int("output_width", width as i64),
            Attribute::Int("sampling_ratio", pool.sampling_ratio as i64),
            Attribute::Float("spatial_scale", 1.0),
        ];
        b.node("RoiAlign", &[&maps[level].1, &boxes, image], &attributes)
    };
    if maps.len() == 1 {
        return Pooled {
            features: aligned(0, boxes, image, b),
            order: None,
        };
    }

    // The level of a box, from 0.
    let [low, high] = corners(boxes, 1, b);
    let size = b.op("Sub", [&high, &low]);
    let [width, height] = [0, 1].map(|i| b.column(&size, i));
    let area = b.op("Mul", [&width, &height]);
    let side = b.op("Sqrt", [&area]);
    let canonical = b.float(pool.canonical_scale);
    let relative = b.op("Div", [&side, &canonical]);
    let level = log2(&relative, b);
    let canonical = b.float(pool.canonical_level as f32);
    let level = b.op("Add", [&canonical, &level]);
    let eps = b.float(1e-6);
    let level = b.op("Add", [&level, &eps]);
    let level = b.op("Floor", [&level]);
    // The first level is minus the exponent of the scale.
    let level = b.op("Add", [&level, &scale]);
    let (least, most) = (b.float(0.0), b.float((last - first) as f32));
    let level = b.op("Clip", [&level, &least, &most]);

    let (mut features, mut order) = (Vec::new(), Vec::new());
    for (i, range) in level_ranges(&strides).into_iter().enumerate() {
        let Some((start, end)) = range else { continue };
        let [start_value, end_value] = [start, end].map(|k| b.float(k as f32));
        let here = match start == end {
            true => b.op("Equal", [&level, &start_value]),
            false => {
                let above = b.op("GreaterOrEqual", [&level, &start_value]);
                let below = b.op("LessOrEqual", [&level, &end_value]);
                b.op("And", [&above, &below])
            }
        };
        let here = b.op("NonZero", [&here]);
        let here = b.squeeze(&here, 0);
        let [boxes, image] = [boxes, image].map(|rows| b.gather(rows, &here, 0));
        features.push(aligned(i, &boxes, &image, b));
        order.push(here);
    }
    let joined = |parts: Vec<Value>, b: &mut Builder| {
        let parts: Vec<&Value> = parts.iter().collect();
        b.concat(&parts, 0)
    };
    Pooled {
        features: joined(features, b),
        order: Some(joined(order, b)),
    }
}

/// Which levels, counted from the first map's, each map serves: those that are missing go to the next finer one.
fn level_ranges(strides: &[i32]) -> Vec<Option<(i32, i32)>> {
    let (first, last) = (strides[0], strides[strides.len() - 1].max(strides[0]));
    let consecutive = last - first + 1 == strides.len() as i32;
    let map_of = |k: i32| match consecutive {
        true => (k - first) as usize,
        false => {
            let finer = strides.iter().filter(|&&stride| stride <= k).max();
            let stride = finer.unwrap_or(&first);
            strides.iter().position(|s| s == stride).unwrap_or(0)
        }
    };
    let mut ranges = vec![None; strides.len()];
    for k in first..=last {
        let range: &mut Option<(i32, i32)> = &mut ranges[map_of(k)];
        *range = Some((range.map_or(k - first, |(start, _)| start), k - first));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::level_ranges;

    #[test]
    fn missing_levels_go_to_the_next_finer_map() {
        let some = |start, end| Some((start, end));
        assert_eq!(level_ranges(&[2, 3]), [some(0, 0), some(1, 1)]);
        assert_eq!(level_ranges(&[2, 4]), [some(0, 1), some(2, 2)]);
        assert_eq!(level_ranges(&[3, 4, 4]), [some(0, 0), some(1, 1), None]);
    }
}
