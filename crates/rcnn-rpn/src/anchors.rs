//! Anchors: the boxes at every location that proposals start from.

use burn::tensor::{Int, Tensor, backend::Backend};
use rcnn_backbone::FeatureMaps;
use rcnn_ops::BBox;
use serde::{Deserialize, Serialize};

use crate::RegionProposalNetwork;

/// Sizes and shapes of the anchors of each level
/// (`torchvision.models.detection.anchor_utils.AnchorGenerator`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnchorGenerator {
    /// Side of a square anchor in pixels of the resized image, for each level one or several.
    pub sizes: Vec<Vec<f32>>,
    /// Height divided by width, for each level one or several.
    pub aspect_ratios: Vec<Vec<f32>>,
}

impl Default for AnchorGenerator {
    /// Five levels, one size each from 32 to 512, three ratios.
    fn default() -> Self {
        Self {
            sizes: [32.0, 64.0, 128.0, 256.0, 512.0]
                .map(|size| vec![size])
                .into(),
            aspect_ratios: vec![vec![0.5, 1.0, 2.0]; 5],
        }
    }
}

impl AnchorGenerator {
    /// Anchors at each location. torchvision's head has the first level's number for all levels.
    pub fn num_anchors_per_location(&self) -> usize {
        match (self.sizes.first(), self.aspect_ratios.first()) {
            (Some(sizes), Some(ratios)) => sizes.len() * ratios.len(),
            _ => 0,
        }
    }

    /// Whether the generator serves `levels` feature maps.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, levels: usize) -> Result<(), String> {
        let (sizes, ratios) = (self.sizes.len(), self.aspect_ratios.len());
        if sizes != levels || ratios != levels {
            return Err(format!(
                "the backbone has {levels} feature maps, but there are anchor sizes for {sizes} \
                 and aspect ratios for {ratios}"
            ));
        }
        let expected = self.num_anchors_per_location();
        let count = |(s, r): (&Vec<f32>, &Vec<f32>)| s.len() * r.len();
        if expected == 0
            || self
                .sizes
                .iter()
                .zip(&self.aspect_ratios)
                .map(count)
                .any(|n| n != expected)
        {
            return Err("every level needs the same number of anchors, at least one".to_string());
        }
        let positive =
            |values: &[Vec<f32>]| values.iter().flatten().all(|v| *v > 0.0 && v.is_finite());
        if !positive(&self.sizes) || !positive(&self.aspect_ratios) {
            return Err("anchor sizes and aspect ratios must be positive".to_string());
        }
        Ok(())
    }

    /// Anchors of a level around the origin, in whole pixels: ratios outer, sizes inner.
    pub fn cell_anchors(&self, level: usize) -> Vec<BBox> {
        let anchor = |ratio: f32, size: f32| {
            let height = ratio.sqrt();
            let (half_width, half_height) = (1.0 / height * size / 2.0, height * size / 2.0);
            [-half_width, -half_height, half_width, half_height].map(f32::round_ties_even)
        };
        let ratios = self.aspect_ratios[level].iter();
        ratios
            .flat_map(|&ratio| {
                self.sizes[level]
                    .iter()
                    .map(move |&size| anchor(ratio, size))
            })
            .collect()
    }

    /// Anchors of a level over a grid of `(height, width)` locations, `stride` pixels apart.
    ///
    /// # Shapes
    /// - output: `[height * width * A, 4]`, row by row, xyxy in pixels of the padded image
    pub fn grid_anchors<B: Backend>(
        &self,
        level: usize,
        (height, width): (usize, usize),
        stride: (usize, usize),
        device: &B::Device,
    ) -> Tensor<B, 2> {
        // The first row of the grid; the others have other heights.
        let cell = self.cell_anchors(level);
        let mut row = Vec::with_capacity(width * cell.len() * 4);
        for x in (0..width).map(|x| (x * stride.1) as f32) {
            row.extend(cell.iter().flat_map(|b| [b[0] + x, b[1], b[2] + x, b[3]]));
        }
        let n = row.len();
        let row = Tensor::<B, 1>::from_floats(row.as_slice(), device).reshape([1, n]);
        let vertical = Tensor::<B, 2>::from_floats([[0.0, 1.0, 0.0, 1.0]], device);
        let vertical = vertical.repeat(&[height, n / 4]);
        let y = Tensor::<B, 1, Int>::arange(0..height as i64, device) * stride.0 as i64;
        (vertical * y.float().reshape([height, 1]) + row).reshape([height * n / 4, 4])
    }
}

impl<B: Backend> RegionProposalNetwork<B> {
    /// Anchors of every level, `[height * width * A, 4]`, for a batch padded to `padded_size`
    /// (height, width).
    pub fn anchors(
        &self,
        features: &FeatureMaps<B>,
        padded_size: (usize, usize),
    ) -> Vec<Tensor<B, 2>> {
        features
            .iter()
            .enumerate()
            .map(|(level, (_, map))| {
                let [_, _, height, width] = map.dims();
                let stride = (padded_size.0 / height, padded_size.1 / width);
                let generator = &self.config.anchor_generator;
                generator.grid_anchors(level, (height, width), stride, &map.device())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_anchors_are_torchvisions() {
        // torchvision: AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),)).cell_anchors
        let expected = [
            [-23.0, -11.0, 23.0, 11.0],
            [-16.0, -16.0, 16.0, 16.0],
            [-11.0, -23.0, 11.0, 23.0],
        ];
        assert_eq!(AnchorGenerator::default().cell_anchors(0), expected);
    }

    #[test]
    fn a_generator_that_does_not_fit_is_refused() {
        let generator = AnchorGenerator::default();
        assert!(generator.check(5).is_ok());
        assert!(generator.check(1).unwrap_err().contains("1 feature maps"));
        let uneven = AnchorGenerator {
            sizes: vec![vec![32.0], vec![64.0, 128.0]],
            aspect_ratios: vec![vec![1.0]; 2],
        };
        assert!(uneven.check(2).unwrap_err().contains("same number"));
    }
}
