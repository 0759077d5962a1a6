//! RoIAlign over the levels of a pyramid, by the operator or by gathering.

use rcnn_backbone::LevelSpec;
use rcnn_roi::MultiScaleRoiAlign;

use crate::boxes::corners;
use crate::builder::{Builder, Value};
use crate::error::OnnxError;
use crate::options::Pooling;
use crate::proto::{Attribute, ElementType};

/// Features of boxes, in an order of their own.
pub(crate) struct Pooled {
    /// `[K, channels, height, width]`
    pub(crate) features: Value,
    /// `[K]`: which box each row is of; `None` where they are in order.
    order: Option<Value>,
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

/// Feature maps and the boxes that features are pooled for.
pub(crate) struct Pool<'a> {
    config: &'a MultiScaleRoiAlign,
    /// `[N, channels, H, W]` of each level, finest first.
    maps: Vec<&'a Value>,
    strides: Vec<i32>,
    /// The scale of the first map, as the logarithm of 2.
    scale: Value,
    /// `[K, 4]`
    boxes: &'a Value,
    /// `[K]`
    image: &'a Value,
}

/// Pools features, each box from the level that fits its size.
///
/// # Shapes
/// - maps: `[N, channels, H, W]` of each level, finest first
/// - boxes `[K, 4]`, image `[K]`
/// - height: that of the largest image
///
/// # Errors
/// When the sampling has no form in the kind of pooling.
pub(crate) fn roi_align(
    config: &MultiScaleRoiAlign,
    pooling: Pooling,
    maps: &[(&LevelSpec, Value)],
    [boxes, image, height]: [&Value; 3],
    b: &mut Builder,
) -> Result<Pooled, OnnxError> {
    let maps = maps.iter();
    let maps: Vec<_> = maps
        .filter(|(level, _)| config.featmap_names.contains(&level.name))
        .collect();
    // torchvision infers the scale from the images, which are smaller than the padded batch.
    let rows = b.size(&maps[0].1, 2);
    let rows = b.squeeze(&rows, 0);
    let rows = b.cast(&rows, ElementType::Float);
    let scale = b.op("Div", [&rows, height]);
    let scale = log2(&scale, b);
    let pool = Pool {
        config,
        strides: maps.iter().map(|(level, _)| log_stride(level)).collect(),
        maps: maps.iter().map(|(_, map)| map).collect(),
        scale: b.op("Round", [&scale]),
        boxes,
        image,
    };
    match pooling {
        Pooling::RoiAlign => Ok(pool.by_operator(b)),
        Pooling::Gather if config.sampling_ratio == 0 => Err(OnnxError::Setting {
            field: "sampling_ratio",
            found: "0".into(),
            expected: "a number of samples, as only RoIAlign itself takes as many as there are pixels",
        }),
        Pooling::Gather => Ok(pool.by_gathering(b)),
    }
}

impl Pool<'_> {
    /// Strides of the first and the last map.
    fn span(&self) -> (i32, i32) {
        let (first, last) = (self.strides[0], self.strides[self.strides.len() - 1]);
        (first, last.max(first))
    }

    /// Pixels of a map for each of the images.
    fn level_scale(&self, level: usize, b: &mut Builder) -> Value {
        let coarser = b.float((self.strides[level] - self.strides[0]) as f32);
        let (two, scale) = (b.float(2.0), b.op("Sub", [&self.scale, &coarser]));
        b.op("Pow", [&two, &scale])
    }

    /// The level of each box `[K]`, from 0 for the first map's stride.
    fn levels(&self, b: &mut Builder) -> Value {
        let (first, last) = self.span();
        let [low, high] = corners(self.boxes, 1, b);
        let size = b.op("Sub", [&high, &low]);
        let [width, height] = [0, 1].map(|i| b.column(&size, i));
        let area = b.op("Mul", [&width, &height]);
        let side = b.op("Sqrt", [&area]);
        let canonical = b.float(self.config.canonical_scale);
        let relative = b.op("Div", [&side, &canonical]);
        let level = log2(&relative, b);
        let canonical = b.float(self.config.canonical_level as f32);
        let level = b.op("Add", [&canonical, &level]);
        let eps = b.float(1e-6);
        let level = b.op("Add", [&level, &eps]);
        let level = b.op("Floor", [&level]);
        // The first level is minus the exponent of the scale.
        let level = b.op("Add", [&level, &self.scale]);
        let (least, most) = (b.float(0.0), b.float((last - first) as f32));
        b.op("Clip", [&level, &least, &most])
    }

    /// A RoiAlign for each level, on the boxes that belong to it.
    fn by_operator(&self, b: &mut Builder) -> Pooled {
        if self.maps.len() == 1 {
            return Pooled {
                features: self.aligned(0, self.boxes, self.image, b),
                order: None,
            };
        }
        let level = self.levels(b);
        let (mut features, mut order) = (Vec::new(), Vec::new());
        for (i, range) in level_ranges(&self.strides).into_iter().enumerate() {
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
            let [boxes, image] = [self.boxes, self.image].map(|rows| b.gather(rows, &here, 0));
            features.push(self.aligned(i, &boxes, &image, b));
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

    fn aligned(&self, level: usize, boxes: &Value, image: &Value, b: &mut Builder) -> Value {
        let scale = self.level_scale(level, b);
        let boxes = b.op("Mul", [boxes, &scale]);
        // At least one location wide, which runtimes disagree about.
        let [low, high] = corners(&boxes, 1, b);
        let one = b.float(1.0);
        let least = b.op("Add", [&low, &one]);
        let high = b.op("Max", [&high, &least]);
        let boxes = b.concat(&[&low, &high], 1);
        let [height, width] = self.config.output_size;
        let mut attributes = vec![
            Attribute::Text("mode", "avg"),
            Attribute::Int("output_height", height as i64),
            Attribute::Int("output_width", width as i64),
            Attribute::Int("sampling_ratio", self.config.sampling_ratio as i64),
            Attribute::Float("spatial_scale", 1.0),
        ];
        if b.opset() >= 16 {
            // What it was before there was a choice.
            let mode = "output_half_pixel";
            attributes.push(Attribute::Text("coordinate_transformation_mode", mode));
        }
        b.node("RoiAlign", &[self.maps[level], &boxes, image], &attributes)
    }

    /// All levels as one table of locations, of which each sample is four rows.
    fn by_gathering(&self, b: &mut Builder) -> Pooled {
        let (mut rows, mut start) = (Vec::new(), b.int(0));
        // What belongs to each map: where it starts in the table, and its height, width and scale.
        let mut about: [Vec<Value>; 4] = Default::default();
        for (i, &map) in self.maps.iter().enumerate() {
            let shape = b.shape(map);
            let [count, channels, height, width] = [0, 1, 2, 3].map(|axis| {
                let axis = b.int(axis);
                b.gather(&shape, &axis, 0)
            });
            let scale = self.level_scale(i, b);
            let column = |values: &mut Vec<Value>, value: &Value, b: &mut Builder| {
                values.push(b.unsqueeze(value, &[0]));
            };
            column(&mut about[0], &start, b);
            column(&mut about[1], &height, b);
            column(&mut about[2], &width, b);
            column(&mut about[3], &scale, b);
            let channels_last = b.transpose(map, &[0, 2, 3, 1]);
            let (all, channels) = (b.ints(&[-1]), b.unsqueeze(&channels, &[0]));
            let shape = b.concat(&[&all, &channels], 0);
            rows.push(b.op("Reshape", [&channels_last, &shape]));
            let area = b.op("Mul", [&height, &width]);
            let size = b.op("Mul", [&count, &area]);
            start = b.op("Add", [&start, &size]);
        }
        let rows: Vec<&Value> = rows.iter().collect();
        let table = b.concat(&rows, 0);

        // The map of each box, and what belongs to it: `[K]`.
        let map = match self.maps.len() {
            1 => {
                let zero = b.int(0);
                b.op("Mul", [self.image, &zero])
            }
            _ => {
                let level = self.levels(b);
                let level = b.cast(&level, ElementType::Int64);
                let maps = map_of_levels(&self.strides);
                let maps = b.ints(&maps);
                b.gather(&maps, &level, 0)
            }
        };
        let [start, height, width, scale] = about.map(|values| {
            let values: Vec<&Value> = values.iter().collect();
            let all = b.concat(&values, 0);
            b.gather(&all, &map, 0)
        });
        let area = b.op("Mul", [&height, &width]);
        let offset = b.op("Mul", [self.image, &area]);
        let start = b.op("Add", [&start, &offset]);
        let scale = b.unsqueeze(&scale, &[1]);
        let boxes = b.op("Mul", [self.boxes, &scale]);
        let [low, high] = corners(&boxes, 1, b);
        let size = b.op("Sub", [&high, &low]);
        let one = b.float(1.0);
        let size = b.op("Max", [&size, &one]);

        // Lower and upper location of each sample along an axis and how much they count: `[K, samples]`.
        let bins = self.config.output_size;
        let ratio = self.config.sampling_ratio;
        let [rows, columns] =
            [(1, &height, bins[0]), (0, &width, bins[1])].map(|(axis, sides, bins)| {
                let samples = bins * ratio;
                let places = (0..samples)
                    .map(|i| (i as f32 + 0.5) / samples as f32)
                    .collect();
                let places = b.exact_floats("samples", &[1, samples], places);
                let [low, size] = [&low, &size].map(|both| b.slice(both, 1, axis, axis + 1));
                let place = b.op("Mul", [&size, &places]);
                let place = b.op("Add", [&low, &place]);
                let sides = b.unsqueeze(sides, &[1]);
                taps(&place, &sides, b)
            });
        let width = b.unsqueeze(&width, &[1]);
        let starts = b.unsqueeze(&start, &[1]);
        // Rows of the table at which the rows of maps begin.
        let starts = rows.index.map(|row| {
            let row = b.op("Mul", [&row, &width]);
            b.op("Add", [&row, &starts])
        });
        let mut sum: Option<Value> = None;
        let mean = b.float(1.0 / (ratio * ratio) as f32);
        for (i, j) in (0..ratio).flat_map(|i| (0..ratio).map(move |j| (i, j))) {
            for (start, row_weight) in starts.iter().zip(&rows.weight) {
                for (column, column_weight) in columns.index.iter().zip(&columns.weight) {
                    let every = |x: &Value, from: usize, axis: i64, b: &mut Builder| {
                        let x = b.every(x, from as i64, ratio as i64);
                        b.unsqueeze(&x, &[axis])
                    };
                    let at = [every(start, i, 2, b), every(column, j, 1, b)];
                    let at = b.op("Add", [&at[0], &at[1]]);
                    let weights = [every(row_weight, i, 2, b), every(column_weight, j, 1, b)];
                    let weight = b.op("Mul", [&weights[0], &weights[1]]);
                    let weight = b.op("Mul", [&weight, &mean]);
                    let weight = b.unsqueeze(&weight, &[3]);
                    let values = b.gather(&table, &at, 0);
                    let values = b.op("Mul", [&values, &weight]);
                    sum = Some(match &sum {
                        Some(sum) => b.op("Add", [sum, &values]),
                        None => values,
                    });
                }
            }
        }
        let sum = sum.expect("a ratio of one or more");
        Pooled {
            features: b.transpose(&sum, &[0, 3, 1, 2]),
            order: None,
        }
    }
}

/// Two locations along an axis that a sample lies between, and their weights: each `[K, samples]`.
struct Taps {
    index: [Value; 2],
    weight: [Value; 2],
}

/// Taps for places in maps of `count` locations `[K, 1]`. Places more than one location outside a map have weight 0
/// (torchvision's `bilinear_interpolate`).
fn taps(place: &Value, count: &Value, b: &mut Builder) -> Taps {
    let size = b.cast(count, ElementType::Float);
    let (zero, one, before) = (b.float(0.0), b.float(1.0), b.float(-1.0));
    let above = b.op("GreaterOrEqual", [place, &before]);
    let below = b.op("LessOrEqual", [place, &size]);
    let inside = b.op("And", [&above, &below]);
    let inside = b.cast(&inside, ElementType::Float);
    let last = b.op("Sub", [&size, &one]);
    let place = b.op("Max", [place, &zero]);
    let low = b.op("Floor", [&place]);
    let low = b.op("Min", [&low, &last]);
    let high = b.op("Add", [&low, &one]);
    let high = b.op("Min", [&high, &last]);
    let fraction = b.op("Sub", [&place, &low]);
    let fraction = b.op("Min", [&fraction, &one]);
    let rest = b.op("Sub", [&one, &fraction]);
    Taps {
        index: [&low, &high].map(|location| b.cast(location, ElementType::Int64)),
        weight: [&rest, &fraction].map(|weight| b.op("Mul", [weight, &inside])),
    }
}

/// Position of the map that serves each level, counted from the first map's: where one is missing, the next finer.
fn map_of_levels(strides: &[i32]) -> Vec<i64> {
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
    (first..=last).map(|k| map_of(k) as i64).collect()
}

/// Which levels, counted from the first map's, each map serves.
fn level_ranges(strides: &[i32]) -> Vec<Option<(i32, i32)>> {
    let mut ranges = vec![None; strides.len()];
    for (level, map) in (0..).zip(map_of_levels(strides)) {
        let range: &mut Option<(i32, i32)> = &mut ranges[map as usize];
        *range = Some((range.map_or(level, |(start, _)| start), level));
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
