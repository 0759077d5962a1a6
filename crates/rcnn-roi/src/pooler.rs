//! RoIAlign or RoIPool over a feature pyramid: each box is cut from the level that fits its size.

use burn::tensor::{Tensor, TensorData};
use rcnn_backbone::{FeatureMaps, LevelSpec};
use rcnn_ops::{
    BBox, DetectionBackend, RoiAlignOptions, RoiLevel, box_area, crop_and_max_pool,
    multi_scale_roi_align, multi_scale_roi_pool,
};
use rcnn_types::Size;
use rcnn_types::validate::{InvalidField, require, require_positive, require_within};
use serde::{Deserialize, Serialize};

/// RoIAlign over several levels (`torchvision.ops.MultiScaleRoIAlign`), or another pooling in its place.
///
/// The scale of every level is inferred from the sizes of map and images, as torchvision does,
/// but for each call: torchvision keeps those of the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MultiScaleRoiAlign {
    /// Feature maps to cut from; others are ignored.
    pub featmap_names: Vec<String>,
    /// Height and width of the cut.
    pub output_size: [usize; 2],
    /// Samples per bin and axis of RoIAlign; 0 takes as many as the bin has pixels.
    pub sampling_ratio: usize,
    /// Method that computes a bin. torchvision: RoIAlign.
    pub method: PoolMethod,
    /// Side in pixels of the box that belongs to `canonical_level`.
    pub canonical_scale: f32,
    /// Level, counted as the logarithm of its stride, of such a box.
    pub canonical_level: i32,
}

impl Default for MultiScaleRoiAlign {
    fn default() -> Self {
        Self {
            featmap_names: ["0", "1", "2", "3"].map(String::from).into(),
            output_size: [7, 7],
            sampling_ratio: 2,
            method: PoolMethod::RoiAlign,
            canonical_scale: 224.0,
            canonical_level: 4,
        }
    }
}

/// Method that computes a bin of a pooled box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMethod {
    /// The mean of bilinear samples (`torchvision.ops.roi_align`).
    RoiAlign,
    /// The largest of the pixels that it covers, its borders rounded to whole pixels (`torchvision.ops.roi_pool`), as in
    /// Fast and Faster R-CNN.
    RoiPool,
    /// The largest of bilinear samples, `sampling_ratio` per axis, that divide the box evenly from edge to edge
    /// (TensorFlow's `crop_and_resize`, then `max_pool`). From one feature map.
    CropAndResize,
}

impl MultiScaleRoiAlign {
    /// The pooling of torchvision's mask and keypoint branches: 14x14.
    pub(crate) fn branch() -> Self {
        Self {
            output_size: [14, 14],
            ..Self::default()
        }
    }
}

/// The fields of a [`MultiScaleRoiAlign`] as serde reads them for a mask or keypoint branch: where one is
/// missing, it has that branch's default.
#[derive(Deserialize)]
#[serde(default = "MultiScaleRoiAlign::branch", remote = "MultiScaleRoiAlign")]
pub(crate) struct BranchPool {
    featmap_names: Vec<String>,
    output_size: [usize; 2],
    sampling_ratio: usize,
    method: PoolMethod,
    canonical_scale: f32,
    canonical_level: i32,
}

/// Largest number of bins along an axis.
const MAX_BINS: usize = 64;
/// Largest number of samples of a bin along an axis.
const MAX_SAMPLES: usize = 64;
/// Largest logarithm of a stride.
const MAX_LEVEL: i32 = 24;

impl MultiScaleRoiAlign {
    /// Checks every field; which maps there are is not known here. `name` is that of the pooling in a configuration.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self, name: &str) -> Result<(), InvalidField> {
        for (i, bins) in self.output_size.into_iter().enumerate() {
            require_within(&format!("{name}.output_size[{i}]"), bins, 1..=MAX_BINS)?;
        }
        let samples = self.sampling_ratio;
        let least = match self.method {
            PoolMethod::RoiAlign | PoolMethod::RoiPool => 0,
            PoolMethod::CropAndResize => 1,
        };
        require_within(
            &format!("{name}.sampling_ratio"),
            samples,
            least..=MAX_SAMPLES,
        )?;
        require(
            self.method != PoolMethod::CropAndResize || self.featmap_names.len() == 1,
            &format!("{name}.featmap_names"),
            format_args!("{:?}", self.featmap_names),
            "one feature map, for crop_and_resize",
        )?;
        require_positive(&format!("{name}.canonical_scale"), self.canonical_scale)?;
        let level = self.canonical_level;
        require_within(&format!("{name}.canonical_level"), level, 0..=MAX_LEVEL)
    }

    /// Checks that `featmap_names` has one of these feature maps.
    ///
    /// # Errors
    /// Names the feature maps.
    pub fn validate_levels(&self, name: &str, levels: &[LevelSpec]) -> Result<(), InvalidField> {
        let known: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        let names = &self.featmap_names;
        require(
            names.iter().any(|name| known.contains(&name.as_str())),
            &format!("{name}.featmap_names"),
            names,
            format_args!(
                "one or more of the backbone's feature maps: {}",
                known.join(", ")
            ),
        )
    }

    /// Cuts every box of every image.
    ///
    /// # Shapes
    /// - features: maps `[N, C, H, W]`
    /// - boxes: N lists, xyxy in pixels of the images of `image_sizes`
    /// - output: `[K, C, output height, output width]`, image after image
    ///
    /// # Panics
    /// When none of the features has one of `featmap_names`.
    pub fn forward<B: DetectionBackend>(
        &self,
        features: &FeatureMaps<B>,
        boxes: &[&[BBox]],
        image_sizes: &[Size],
    ) -> Tensor<B, 4> {
        let levels: Vec<&Tensor<B, 4>> = features
            .iter()
            .filter(|(name, _)| self.featmap_names.iter().any(|n| n == name))
            .map(|(_, map)| map)
            .collect();
        assert!(
            !levels.is_empty(),
            "no feature map is named one of {:?}; there are {:?}",
            self.featmap_names,
            features.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        if self.method == PoolMethod::CropAndResize {
            let (bins, samples) = (self.output_size, self.sampling_ratio);
            return crop_and_max_pool(levels[0], boxes, image_sizes, bins, samples);
        }
        let height = image_sizes
            .iter()
            .map(|size| size.height)
            .max()
            .unwrap_or(1);
        let scales: Vec<f32> = levels
            .iter()
            .map(|map| infer_scale(map.dims()[2], height))
            .collect();
        let mapper = self.level_mapper(&scales);
        let positions = positions(&scales.iter().map(|&s| log_stride(s)).collect::<Vec<_>>());

        // Boxes by level, and where each stands in the result.
        let mut rois = vec![Vec::new(); levels.len()];
        let mut order = vec![Vec::new(); levels.len()];
        let all = boxes
            .iter()
            .enumerate()
            .flat_map(|(i, b)| b.iter().map(move |b| (i, b)));
        for (position, (image, b)) in all.enumerate() {
            let level = positions[mapper.level(b)];
            rois[level].extend_from_slice(&[image as f32, b[0], b[1], b[2], b[3]]);
            order[level].push(position);
        }
        let device = levels[0].device();
        let count: usize = order.iter().map(Vec::len).sum();
        let pooled = rois.into_iter().zip(order).enumerate();
        let pooled = pooled
            // Without any boxes, the first level says what shape the output has.
            .filter(|(level, (_, rows))| !rows.is_empty() || (count == 0 && *level == 0))
            .map(|(level, (rois, rows))| RoiLevel {
                features: levels[level].clone(),
                rois: Tensor::from_data(TensorData::new(rois, [rows.len(), 5]), &device),
                rows,
                options: RoiAlignOptions {
                    output_size: self.output_size,
                    spatial_scale: scales[level],
                    sampling_ratio: self.sampling_ratio,
                    aligned: false,
                },
            });
        match self.method {
            PoolMethod::RoiAlign => multi_scale_roi_align(pooled.collect()),
            PoolMethod::RoiPool => multi_scale_roi_pool(pooled.collect()),
            PoolMethod::CropAndResize => unreachable!("returned above"),
        }
    }

    fn level_mapper(&self, scales: &[f32]) -> LevelMapper {
        let k_min = log_stride(scales[0]);
        LevelMapper {
            k_min,
            // Maps of one stride may differ by a location, and so in what is inferred.
            k_max: log_stride(scales[scales.len() - 1]).max(k_min),
            canonical_scale: self.canonical_scale,
            canonical_level: self.canonical_level,
        }
    }
}

/// The power of two nearest to the ratio of a map's height to the images'.
fn infer_scale(map_height: usize, image_height: usize) -> f32 {
    (map_height.max(1) as f32 / image_height.max(1) as f32)
        .log2()
        .round_ties_even()
        .exp2()
}

fn log_stride(scale: f32) -> i32 {
    -scale.log2() as i32
}

/// Position among the maps, by the index that a [`LevelMapper`] gives.
///
/// torchvision takes the index for the position: maps must follow each other by strides of two. Where
/// one is missing, its boxes are cut from the next finer one.
fn positions(levels: &[i32]) -> Vec<usize> {
    let (first, last) = (levels[0], levels[levels.len() - 1]);
    if last - first + 1 == levels.len() as i32 {
        return (0..levels.len()).collect();
    }
    let finer = |k: i32| levels.iter().filter(|&&level| level <= k).max();
    (first..=last.max(first))
        .map(|k| {
            let level = finer(k).expect("the first level is one");
            levels.iter().position(|l| l == level).unwrap_or(0)
        })
        .collect()
}

/// Assignment of boxes to levels of the pyramid: equation 1 of the FPN paper
/// (`torchvision.ops.poolers.LevelMapper`).
#[derive(Debug, Clone, PartialEq)]
pub struct LevelMapper {
    /// Logarithm of the first level's stride.
    pub k_min: i32,
    /// Logarithm of the last level's stride.
    pub k_max: i32,
    /// Side in pixels of the box that belongs to `canonical_level`.
    pub canonical_scale: f32,
    /// Logarithm of the stride that such a box belongs to.
    pub canonical_level: i32,
}

impl LevelMapper {
    /// Index of the box's level, 0 for the first.
    pub fn level(&self, b: &BBox) -> usize {
        const EPS: f32 = 1e-6;
        let side = box_area(b).sqrt();
        let level =
            (self.canonical_level as f32 + (side / self.canonical_scale).log2() + EPS).floor();
        // A NaN becomes 0 and so the first level.
        ((level as i32).min(self.k_max).max(self.k_min) - self.k_min) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_from_coarse_to_fine_end_in_no_panic() {
        let mapper = MultiScaleRoiAlign::default().level_mapper(&[1.0 / 16.0, 1.0 / 8.0]);
        for side in [1.0, 100.0, 1000.0] {
            assert_eq!(mapper.level(&[0.0, 0.0, side, side]), 0);
        }
        let mapper = LevelMapper {
            k_min: 4,
            k_max: 3,
            canonical_scale: 224.0,
            canonical_level: 4,
        };
        assert_eq!(mapper.level(&[0.0, 0.0, 9.0, 9.0]), 0);
    }

    #[test]
    fn pooling_from_maps_that_there_are_not_is_refused() {
        let pool = MultiScaleRoiAlign::default();
        let level = |name| LevelSpec::new(name, 8, 4);
        assert_eq!(pool.validate_levels("box_roi_pool", &[level("0")]), Ok(()));
        let error = pool
            .validate_levels("box_roi_pool", &[level("c3"), level("c4")])
            .unwrap_err();
        let expected = "box_roi_pool.featmap_names = [\"0\", \"1\", \"2\", \"3\"]: expected one or \
                        more of the backbone's feature maps: c3, c4";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn boxes_of_a_missing_level_go_to_the_next_finer_one() {
        assert_eq!(positions(&[2, 3, 4, 5]), [0, 1, 2, 3]);
        assert_eq!(positions(&[3]), [0]);
        assert_eq!(positions(&[2, 4]), [0, 0, 1]);
        assert_eq!(positions(&[2, 5]), [0, 0, 0, 1]);
        assert_eq!(positions(&[3, 4, 6]), [0, 1, 1, 2]);
        // Tiny images: two maps of the same inferred scale.
        assert_eq!(positions(&[2, 3, 3]), [0, 1]);
    }
}
