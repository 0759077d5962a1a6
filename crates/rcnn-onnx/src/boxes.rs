//! Boxes in ONNX operators: anchors, decoding, clipping, suppression.

use rcnn_ops::{BBOX_XFORM_CLIP, BoxRules};
use rcnn_rpn::AnchorGenerator;

use crate::builder::{Builder, Value};
use crate::error::OnnxError;
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
    let stride = match &generator.strides {
        Some(strides) => b.ints(&[strides[level] as i64; 2]),
        None => b.op("Div", [padded, &grid]),
    };
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

/// Boxes from deltas and references, all `[.., .., 4]` that broadcast: clipped, unless the rules have boxes suppress each
/// other first.
pub(crate) fn decode(
    [deltas, references, limits]: [&Value; 3],
    weights: [f32; 4],
    rules: BoxRules,
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
    let scale = match rules {
        BoxRules::Torchvision => {
            let most = b.float(BBOX_XFORM_CLIP as f32);
            b.op("Min", [&scale, &most])
        }
        _ => scale,
    };
    let scale = b.op("Exp", [&scale]);
    let size = b.op("Mul", [&scale, &size]);
    let half_size = b.op("Mul", [&size, &half]);
    let low = b.op("Sub", [&center, &half_size]);
    let high = b.op("Add", [&center, &half_size]);
    let boxes = b.concat(&[&low, &high], 2);
    match rules {
        BoxRules::Tensorflow2019 => boxes,
        _ => clip(&boxes, limits, b),
    }
}

/// Boxes within the limits of their image.
pub(crate) fn clip(boxes: &Value, limits: &Value, b: &mut Builder) -> Value {
    let zero = b.float(0.0);
    let boxes = b.op("Max", [boxes, &zero]);
    b.op("Min", [&boxes, limits])
}

/// The shorter side of boxes `[.., .., 4]`.
pub(crate) fn shorter_side(boxes: &Value, b: &mut Builder) -> Value {
    let [low, high] = corners(boxes, 2, b);
    let size = b.op("Sub", [&high, &low]);
    b.reduce("ReduceMin", &size, &[2], false)
}

/// Sides below which boxes take no part in suppression; torchvision's differ from stage to stage.
pub(crate) fn min_side(rules: BoxRules, torchvisions: f32) -> Option<f32> {
    match rules {
        BoxRules::Torchvision => Some(torchvisions),
        BoxRules::Tensorflow2018 => Some(f32::MIN_POSITIVE),
        BoxRules::Tensorflow2019 => None,
    }
}

/// Whether boxes are large enough and their scores high enough to take part.
///
/// # Shapes
/// - boxes `[.., .., 4]`, scores `[.., ..]`
pub(crate) fn eligible(
    boxes: &Value,
    scores: &Value,
    min_side: Option<f32>,
    (comparison, threshold): (&str, f32),
    b: &mut Builder,
) -> Value {
    let threshold = b.float(threshold);
    let good = b.op(comparison, [scores, &threshold]);
    let Some(least) = min_side else {
        return good;
    };
    let (side, least) = (shorter_side(boxes, b), b.float(least));
    let large = b.op("GreaterOrEqual", [&side, &least]);
    b.op("And", [&large, &good])
}

/// The scores of those that take part, [`OUT`] for the others.
pub(crate) fn out_unless(good: &Value, scores: &Value, b: &mut Builder) -> Value {
    let out = b.float(OUT);
    b.op("Where", [good, scores, &out])
}

/// Scores `[count]` in the order of rows `[.., count]`, highest first and no two alike.
pub(crate) fn by_order(rows: &Value, b: &mut Builder) -> Value {
    let count = b.size(rows, 1);
    let index = b.range(&count);
    let index = b.cast(&index, ElementType::Float);
    // Up to here whole numbers are exact.
    let most = b.float(16_777_216.0);
    b.op("Sub", [&most, &index])
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
    let iou = b.exact_floats("nms_thresh", &[1], vec![rounded_down(iou_threshold)]);
    let limit = b.exact_floats("eligible", &[1], vec![LIMIT]);
    let kept = b.op("NonMaxSuppression", [boxes, &scores, &most, &iou, &limit]);
    let columns = b.ints(&[0, 2]);
    b.gather(&kept, &columns, 1)
}

/// The largest f32 that is not above a number: what is larger than either is larger than both.
fn rounded_down(number: f64) -> f32 {
    let near = number as f32;
    match f64::from(near) > number {
        true => near.next_down(),
        false => near,
    }
}

/// The best scores of each row `[groups, scores]`, at most that many, and [`OUT`] for the others.
pub(crate) fn best_of_groups(scores: &Value, most: usize, b: &mut Builder) -> Value {
    let [values, indices] = b.top_k(scores, most);
    let (out, shape) = (b.float(OUT), b.shape(scores));
    let none = b.op("Expand", [&out, &shape]);
    let along = [Attribute::Int("axis", 1)];
    b.node("ScatterElements", &[&none, &indices, &values], &along)
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

/// The highest scores of each row that are not [`OUT`]; with `padded`, as many of each row, of which some are. Then
/// those are dropped whose `sides`, of the scores' shape, are zero.
pub(crate) fn best(
    scores: &Value,
    most: usize,
    sides: Option<&Value>,
    padded: bool,
    b: &mut Builder,
) -> Result<Best, OnnxError> {
    let [values, indices] = b.top_k(scores, most);
    let limit = b.float(LIMIT);
    let mut exists = b.op("Greater", [&values, &limit]);
    if let Some(sides) = sides {
        let along = [Attribute::Int("axis", 1)];
        let sides = b.node("GatherElements", &[sides, &indices], &along);
        let zero = b.float(0.0);
        let large = b.op("Greater", [&sides, &zero]);
        exists = b.op("And", [&exists, &large]);
    }
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

#[cfg(test)]
mod tests {
    use super::rounded_down;

    #[test]
    fn an_overlap_above_the_threshold_in_f32_is_above_it() {
        let above = 0.3_f32;
        assert!(f64::from(above) > 0.3 && above > rounded_down(0.3));
        assert_eq!(rounded_down(0.5), 0.5);
        assert_eq!(rounded_down(0.7), 0.7);
    }
}
