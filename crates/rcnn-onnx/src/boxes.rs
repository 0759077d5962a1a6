//! Boxes in ONNX operators: anchors, decoding, clipping, suppression.

use rcnn_ops::BBOX_XFORM_CLIP;
use rcnn_rpn::AnchorGenerator;

use crate::builder::{Builder, Value};
use crate::error::OnnxError;
use crate::proto::ElementType;

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
    let vertical = b.exact_floats("vertical", &[4], vec![0.0, 1.0, 0.0, 1.0]);
    let horizontal = b.exact_floats("horizontal", &[4], vec![1.0, 0.0, 1.0, 0.0]);
    let (y, x) = (b.op("Mul", [&y, &vertical]), b.op("Mul", [&x, &horizontal]));
    let cell = generator.cell_anchors(level);
    let name = format!("cell_anchors.{level}");
    let cell = b.exact_floats(&name, &[cell.len(), 4], cell.concat());
    let row = b.op("Add", [&x, &cell]);
    let grid = b.op("Add", [&y, &row]);
    b.reshape(&grid, &[-1, 4])
}

/// Left upper and right lower corners of boxes `[.., 4]`.
pub(crate) fn corners(boxes: &Value, axis: i64, b: &mut Builder) -> [Value; 2] {
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
    let [low, high] = corners(references, 2, b);
    let size = b.op("Sub", [&high, &low]);
    let half = b.float(0.5);
    let half_size = b.op("Mul", [&size, &half]);
    let center = b.op("Add", [&low, &half_size]);
    let deltas = match weights {
        [1.0, 1.0, 1.0, 1.0] => deltas.clone(),
        _ => {
            let weights = b.exact_floats("bbox_reg_weights", &[4], weights.to_vec());
            b.op("Div", [deltas, &weights])
        }
    };
    let [shift, scale] = corners(&deltas, 2, b);
    let shift = b.op("Mul", [&shift, &size]);
    let center = b.op("Add", [&shift, &center]);
    let most = b.float(BBOX_XFORM_CLIP as f32);
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
    let side = b.reduce("ReduceMin", &size, &[2], false);
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
    let iou = b.exact_floats("nms_thresh", &[1], vec![iou_threshold as f32]);
    let limit = b.exact_floats("eligible", &[1], vec![LIMIT]);
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

/// The best of each image, image after image and best first.
pub(crate) struct Best {
    /// `[count]`: the image.
    pub(crate) image: Value,
    /// `[count]`: column of the scores.
    pub(crate) index: Value,
    /// `[count]`
    pub(crate) scores: Value,
    pub(crate) layout: Layout,
}

/// How rows correspond to the slots `[N, most]`.
pub(crate) enum Layout {
    /// Only the occupied slots have rows.
    Found {
        /// `[count, 2]`: image, and rank in it.
        places: Value,
        /// `[2]`: N and most.
        shape: Value,
    },
    /// All of them.
    Padded {
        images: usize,
        most: usize,
        /// `[N, most]`: whether there is something.
        exists: Value,
    },
}

impl Layout {
    /// Rows `[count, tail]` as an output: as they are, or `[N, most, tail]` with zeros in empty slots.
    pub(crate) fn output(&self, rows: &Value, tail: &[i64], b: &mut Builder) -> Value {
        let Self::Padded {
            images,
            most,
            exists,
        } = self
        else {
            return rows.clone();
        };
        let rows = self.spread(rows, tail, 0.0, b);
        let mut each = vec![*images as i64, *most as i64];
        each.resize(2 + tail.len(), 1);
        let (each, nothing) = (b.reshape(exists, &each), b.float(0.0));
        b.op("Where", [&each, &rows, &nothing])
    }

    /// Rows `[count, tail]` at their places: `[N, most, tail]`, and this number elsewhere, or anything where all
    /// places are rows.
    pub(crate) fn spread(
        &self,
        rows: &Value,
        tail: &[i64],
        elsewhere: f32,
        b: &mut Builder,
    ) -> Value {
        match self {
            Self::Found { places, shape } => {
                let tail = b.ints(tail);
                let shape = b.concat(&[shape, &tail], 0);
                scatter(elsewhere, &shape, places, rows, b)
            }
            Self::Padded { images, most, .. } => {
                let shape = [&[*images as i64, *most as i64], tail].concat();
                b.reshape(rows, &shape)
            }
        }
    }
}

/// The highest scores of each row that are not [`OUT`]; with `padded`, as many of each row, of which some are.
pub(crate) fn best(
    scores: &Value,
    most: usize,
    padded: bool,
    b: &mut Builder,
) -> Result<Best, OnnxError> {
    let [values, indices] = b.top_k(scores, most);
    let limit = b.float(LIMIT);
    let exists = b.op("Greater", [&values, &limit]);
    if !padded {
        let places = b.places(&exists);
        return Ok(Best {
            image: b.column(&places, 0),
            index: b.op("GatherND", [&indices, &places]),
            scores: b.op("GatherND", [&values, &places]),
            layout: Layout::Found {
                shape: b.shape(&values),
                places,
            },
        });
    }
    let [images, most] = b.fixed_shape(&values)?;
    let image: Vec<i64> = (0..images * most).map(|i| (i / most) as i64).collect();
    Ok(Best {
        image: b.integers("image", &[images * most], &image),
        index: b.reshape(&indices, &[-1]),
        scores: b.reshape(&values, &[-1]),
        layout: Layout::Padded {
            images,
            most,
            exists,
        },
    })
}

/// Elements `[image[i], index[i]]` of a tensor.
pub(crate) fn pick(x: &Value, image: &Value, index: &Value, b: &mut Builder) -> Value {
    let [image, index] = [image, index].map(|column| b.unsqueeze(column, &[1]));
    let places = b.concat(&[&image, &index], 1);
    b.op("GatherND", [x, &places])
}
