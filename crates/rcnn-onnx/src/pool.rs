//! Pooling of boxes over the levels of a pyramid, by an operator or by gathering.

mod gather;

use rcnn_backbone::LevelSpec;
use rcnn_roi::{MultiScaleRoiAlign, PoolMethod};

use crate::boxes::corners;
use crate::builder::{Builder, Value};
use crate::error::OnnxError;
use crate::options::Pooling;
use crate::proto::{Attribute, ElementType};
use crate::transform::Batch;

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
struct Pool<'a> {
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
///
/// # Errors
/// When the method has no form in the kind of pooling.
pub(crate) fn pool(
    config: &MultiScaleRoiAlign,
    pooling: Pooling,
    maps: &[(&LevelSpec, Value)],
    batch: &Batch,
    boxes: [&Value; 2],
    b: &mut Builder,
) -> Result<Pooled, OnnxError> {
    let maps = maps.iter();
    let maps: Vec<_> = maps
        .filter(|(level, _)| config.featmap_names.contains(&level.name))
        .collect();
    let setting = |field, found: &str, expected| {
        let found = found.into();
        Err(OnnxError::Setting {
            field,
            found,
            expected,
        })
    };
    match (config.method, pooling) {
        (PoolMethod::CropAndResize, _) => {
            return Ok(gather::crop_and_max_pool(
                config, &maps[0].1, batch, boxes, b,
            ));
        }
        (PoolMethod::RoiPool, Pooling::Gather) => {
            return setting(
                "roi_pool.method",
                "roi_pool",
                "roi_align or crop_and_resize: bins of roi_pool have as many pixels as the box says, which only the \
                 operator MaxRoiPool takes",
            );
        }
        (PoolMethod::RoiAlign, Pooling::Gather) if config.sampling_ratio == 0 => {
            return setting(
                "sampling_ratio",
                "0",
                "a number of samples, as only RoIAlign itself takes as many as there are pixels",
            );
        }
        _ => {}
    }
    // torchvision infers the scale from the images, which are smaller than the padded batch.
    let rows = b.size(&maps[0].1, 2);
    let rows = b.squeeze(&rows, 0);
    let rows = b.cast(&rows, ElementType::Float);
    let height = batch.largest(0, b);
    let scale = b.op("Div", [&rows, &height]);
    let scale = log2(&scale, b);
    let [boxes, image] = boxes;
    let pool = Pool {
        config,
        strides: maps.iter().map(|(level, _)| log_stride(level)).collect(),
        maps: maps.iter().map(|(_, map)| map).collect(),
        scale: b.op("Round", [&scale]),
        boxes,
        image,
    };
    Ok(match pooling {
        Pooling::RoiAlign => pool.by_operator(b),
        Pooling::Gather => pool.by_gathering(b),
    })
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

    /// An operator for each level, on the boxes that belong to it.
    fn by_operator(&self, b: &mut Builder) -> Pooled {
        if self.maps.len() == 1 {
            return Pooled {
                features: self.pooled(0, self.boxes, self.image, b),
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
            features.push(self.pooled(i, &boxes, &image, b));
            order.push(here);
        }
        Pooled {
            features: b.concat(&features, 0),
            order: Some(b.concat(&order, 0)),
        }
    }

    fn pooled(&self, level: usize, boxes: &Value, image: &Value, b: &mut Builder) -> Value {
        let scale = self.level_scale(level, b);
        let boxes = b.op("Mul", [boxes, &scale]);
        let [height, width] = self.config.output_size.map(|side| side as i64);
        if self.config.method == PoolMethod::RoiPool {
            let image = b.cast(image, ElementType::Float);
            let image = b.unsqueeze(&image, &[1]);
            let rois = b.concat(&[&image, &boxes], 1);
            let shape = Attribute::Ints("pooled_shape", vec![height, width]);
            return b.node("MaxRoiPool", &[self.maps[level], &rois], &[shape]);
        }
        // At least one location wide, which runtimes disagree about.
        let [low, high] = corners(&boxes, 1, b);
        let one = b.float(1.0);
        let least = b.op("Add", [&low, &one]);
        let high = b.op("Max", [&high, &least]);
        let boxes = b.concat(&[&low, &high], 1);
        let mut attributes = vec![
            Attribute::Text("mode", "avg"),
            Attribute::Int("output_height", height),
            Attribute::Int("output_width", width),
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
