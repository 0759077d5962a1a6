//! Pooling by Gather and arithmetic, of samples that are interpolated between four locations.

use rcnn_roi::MultiScaleRoiAlign;

use super::{Pool, Pooled, map_of_levels};
use crate::boxes::corners;
use crate::builder::{Builder, Value};
use crate::proto::ElementType;
use crate::transform::Batch;

/// How the samples of a bin are combined.
#[derive(Clone, Copy, PartialEq)]
enum Reduce {
    Mean,
    Max,
}

/// Locations of all maps as one table, channels last, and where each map starts in it.
struct Table {
    /// `[locations, channels]`
    rows: Value,
    /// First row, height, width and area of each map: a number each.
    maps: Vec<[Value; 4]>,
}

impl Table {
    fn new(maps: &[&Value], b: &mut Builder) -> Self {
        let (mut rows, mut about, mut start) = (Vec::new(), Vec::new(), b.int(0));
        for map in maps {
            let shape = b.shape(map);
            let [count, channels, height, width] = [0, 1, 2, 3].map(|axis| {
                let axis = b.int(axis);
                b.gather(&shape, &axis, 0)
            });
            let channels_last = b.transpose(map, &[0, 2, 3, 1]);
            let (all, channels) = (b.ints(&[-1]), b.unsqueeze(&channels, &[0]));
            let shape = b.concat(&[&all, &channels], 0);
            rows.push(b.op("Reshape", [&channels_last, &shape]));
            let area = b.op("Mul", [&height, &width]);
            let size = b.op("Mul", [&count, &area]);
            let next = b.op("Add", [&start, &size]);
            about.push([start, height, width, area]);
            start = next;
        }
        Self {
            rows: b.concat(&rows, 0),
            maps: about,
        }
    }
}

/// Two locations along an axis that each sample lies between, and their weights: each `[K, samples]`.
struct Taps {
    index: [Value; 2],
    weight: [Value; 2],
}

impl Taps {
    /// Taps for places in maps of `count` locations `[K, 1]`. Those that are not `within` have weight 0.
    fn new(place: &Value, count: &Value, within: [&Value; 2], b: &mut Builder) -> Self {
        let [least, most] = within;
        let (zero, one) = (b.float(0.0), b.float(1.0));
        let above = b.op("GreaterOrEqual", [place, least]);
        let below = b.op("LessOrEqual", [place, most]);
        let inside = b.op("And", [&above, &below]);
        let inside = b.cast(&inside, ElementType::Float);
        let size = b.cast(count, ElementType::Float);
        let last = b.op("Sub", [&size, &one]);
        let place = b.op("Max", [place, &zero]);
        let low = b.op("Floor", [&place]);
        let low = b.op("Min", [&low, &last]);
        let high = b.op("Add", [&low, &one]);
        let high = b.op("Min", [&high, &last]);
        let fraction = b.op("Sub", [&place, &low]);
        let fraction = b.op("Min", [&fraction, &one]);
        let rest = b.op("Sub", [&one, &fraction]);
        Self {
            index: [&low, &high].map(|location| b.cast(location, ElementType::Int64)),
            weight: [&rest, &fraction].map(|weight| b.op("Mul", [weight, &inside])),
        }
    }
}

/// Features `[K, channels, rows / ratio, columns / ratio]` of samples on maps that start at `start` `[K]` in the table
/// and are `width` `[K]` wide.
fn sampled(
    table: &Value,
    [start, width]: [&Value; 2],
    [rows, columns]: [&Taps; 2],
    (ratio, reduce): (usize, Reduce),
    b: &mut Builder,
) -> Value {
    let [width, start] = [width, start].map(|each| b.unsqueeze(each, &[1]));
    // Rows of the table at which the rows of maps begin.
    let starts = rows.index.each_ref().map(|row| {
        let row = b.op("Mul", [row, &width]);
        b.op("Add", [&row, &start])
    });
    let mean = b.float(1.0 / (ratio * ratio) as f32);
    let every = |x: &Value, from: usize, axis: i64, b: &mut Builder| {
        let x = match ratio {
            1 => x.clone(),
            _ => b.every(x, from as i64, ratio as i64),
        };
        b.unsqueeze(&x, &[axis])
    };
    let add = |sum: Option<Value>, values: Value, b: &mut Builder| match sum {
        Some(sum) => b.op("Add", [&sum, &values]),
        None => values,
    };
    let mut bins: Option<Value> = None;
    for (i, j) in (0..ratio).flat_map(|i| (0..ratio).map(move |j| (i, j))) {
        let mut sample: Option<Value> = None;
        for (start, row_weight) in starts.iter().zip(&rows.weight) {
            for (column, column_weight) in columns.index.iter().zip(&columns.weight) {
                let at = [every(start, i, 2, b), every(column, j, 1, b)];
                let at = b.op("Add", [&at[0], &at[1]]);
                let weights = [every(row_weight, i, 2, b), every(column_weight, j, 1, b)];
                let mut weight = b.op("Mul", [&weights[0], &weights[1]]);
                if reduce == Reduce::Mean {
                    weight = b.op("Mul", [&weight, &mean]);
                }
                let weight = b.unsqueeze(&weight, &[3]);
                let values = b.gather(table, &at, 0);
                let values = b.op("Mul", [&values, &weight]);
                match reduce {
                    Reduce::Mean => bins = Some(add(bins, values, b)),
                    Reduce::Max => sample = Some(add(sample, values, b)),
                }
            }
        }
        if let Some(sample) = sample {
            bins = Some(match bins {
                Some(bins) => b.op("Max", [&bins, &sample]),
                None => sample,
            });
        }
    }
    let bins = bins.expect("a ratio of one or more");
    b.transpose(&bins, &[0, 3, 1, 2])
}

impl Pool<'_> {
    /// RoIAlign: samples in the middles of equal parts of each box, from the map of its level.
    pub(super) fn by_gathering(&self, b: &mut Builder) -> Pooled {
        let table = Table::new(&self.maps, b);
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
        let of_map = |values: Vec<Value>, b: &mut Builder| {
            let values = values.iter().map(|value| b.unsqueeze(value, &[0]));
            let values: Vec<Value> = values.collect();
            let all = b.concat(&values, 0);
            b.gather(&all, &map, 0)
        };
        let [start, height, width, area] = [0, 1, 2, 3].map(|i| {
            let each = table.maps.iter().map(|about| about[i].clone());
            of_map(each.collect(), b)
        });
        let scales = (0..self.maps.len()).map(|level| self.level_scale(level, b));
        let scales = scales.collect();
        let scale = of_map(scales, b);
        let offset = b.op("Mul", [self.image, &area]);
        let start = b.op("Add", [&start, &offset]);
        let scale = b.unsqueeze(&scale, &[1]);
        let boxes = b.op("Mul", [self.boxes, &scale]);
        let [low, high] = corners(&boxes, 1, b);
        let size = b.op("Sub", [&high, &low]);
        let one = b.float(1.0);
        let size = b.op("Max", [&size, &one]);

        let bins = self.config.output_size;
        let ratio = self.config.sampling_ratio;
        let [rows, columns] =
            [(1, &height, bins[0]), (0, &width, bins[1])].map(|(axis, count, bins)| {
                let samples = bins * ratio;
                let places = (0..samples)
                    .map(|i| (i as f32 + 0.5) / samples as f32)
                    .collect();
                let places = b.exact_floats("samples", &[1, samples], places);
                let [low, size] = [&low, &size].map(|both| b.slice(both, 1, axis, axis + 1));
                let place = b.op("Mul", [&size, &places]);
                let place = b.op("Add", [&low, &place]);
                let count = b.unsqueeze(count, &[1]);
                // torchvision's `bilinear_interpolate` goes one location further.
                let (before, after) = (b.float(-1.0), b.cast(&count, ElementType::Float));
                Taps::new(&place, &count, [&before, &after], b)
            });
        let on = [&start, &width];
        let taps = [&rows, &columns];
        Pooled {
            features: sampled(&table.rows, on, taps, (ratio, Reduce::Mean), b),
            order: None,
        }
    }
}

/// TensorFlow's `crop_and_resize`, then a max-pool: samples that divide a box evenly, the first and the last on its
/// edges; those outside the map are zero. In the order of its kernel's arithmetic, as rounding decides which are outside.
pub(super) fn crop_and_max_pool(
    config: &MultiScaleRoiAlign,
    map: &Value,
    batch: &Batch,
    [boxes, image]: [&Value; 2],
    b: &mut Builder,
) -> Pooled {
    let table = Table::new(&[map], b);
    let [_, height, width, area] = &table.maps[0];
    let start = b.op("Mul", [image, area]);
    let [low, high] = corners(boxes, 1, b);
    let (bins, ratio) = (config.output_size, config.sampling_ratio);
    let [rows, columns] =
        [(1, 0, height, bins[0]), (0, 1, width, bins[1])].map(|(axis, side, count, bins)| {
            let samples = bins * ratio;
            let (one, zero) = (b.float(1.0), b.float(0.0));
            let largest = batch.largest(side, b);
            let scale = b.op("Div", [&one, &largest]);
            let locations = b.cast(count, ElementType::Float);
            let last = b.op("Sub", [&locations, &one]);
            let [low, high] = [&low, &high].map(|both| {
                let edge = b.slice(both, 1, axis, axis + 1);
                b.op("Mul", [&edge, &scale])
            });
            let place = if samples == 1 {
                let (half, both) = (b.float(0.5), b.op("Add", [&low, &high]));
                let middle = b.op("Mul", [&half, &both]);
                b.op("Mul", [&middle, &last])
            } else {
                let first = b.op("Mul", [&low, &last]);
                let length = b.op("Sub", [&high, &low]);
                let length = b.op("Mul", [&length, &last]);
                let steps = b.float((samples - 1) as f32);
                let step = b.op("Div", [&length, &steps]);
                let index = (0..samples).map(|i| i as f32).collect();
                let index = b.exact_floats("samples", &[1, samples], index);
                let offset = b.op("Mul", [&index, &step]);
                b.op("Add", [&first, &offset])
            };
            let count = b.unsqueeze(count, &[0]);
            Taps::new(&place, &count, [&zero, &last], b)
        });
    let shape = b.shape(image);
    let width = b.unsqueeze(width, &[0]);
    let width = b.op("Expand", [&width, &shape]);
    let taps = [&rows, &columns];
    let on = [&start, &width];
    Pooled {
        features: sampled(&table.rows, on, taps, (ratio, Reduce::Max), b),
        order: None,
    }
}
