//! Anchors: the boxes at every location that proposals start from.

use burn::tensor::{Int, Tensor, backend::Backend};
use rcnn_backbone::{FeatureMaps, LevelSpec};
use rcnn_ops::BBox;
use rcnn_types::Size;
use rcnn_types::validate::{InvalidField, is_positive, require};
use serde::{Deserialize, Serialize};

use crate::RegionProposalNetwork;

const SIZES: &str = "rpn_anchor_generator.sizes";
const STRIDES: &str = "rpn_anchor_generator.strides";
const RATIOS: &str = "rpn_anchor_generator.aspect_ratios";
/// Largest number of anchors at a location.
const MAX_ANCHORS: usize = 1000;
/// Largest number of pixels between locations.
const MAX_STRIDE: usize = 1 << 13;
/// Largest coordinate of an anchor in pixels: f32 represents every whole number up to here.
const MAX_SIDE: f32 = 16_777_216.0;

/// Sizes and shapes of the anchors of each level
/// (`torchvision.models.detection.anchor_utils.AnchorGenerator`).
///
/// ```
/// # mod rcnn_burn { pub use rcnn_rpn as rpn; }
/// use rcnn_burn::rpn::AnchorGenerator;
///
/// let anchors = AnchorGenerator::with_sizes(vec![vec![16.0], vec![32.0]]);
/// assert_eq!(anchors.num_anchors_per_location(), 3);
/// // Wide, square and tall around the origin.
/// assert_eq!(anchors.cell_anchors(0)[1], [-8.0, -8.0, 8.0, 8.0]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorGenerator {
    /// Side of a square anchor in pixels of the resized image, for each level one or several.
    pub sizes: Vec<Vec<f32>>,
    /// Height divided by width, for each level one or several.
    pub aspect_ratios: Vec<Vec<f32>>,
    /// Pixels between the locations of each level, with anchors of sides that are not rounded, as in TensorFlow's
    /// detectors. Without, as in torchvision, the sizes of image and map say it, and sides are whole pixels.
    #[serde(default)]
    pub strides: Option<Vec<usize>>,
}

impl Default for AnchorGenerator {
    /// Five levels, one size each from 32 to 512, three ratios.
    fn default() -> Self {
        let sizes = [32.0, 64.0, 128.0, 256.0, 512.0];
        Self::with_sizes(sizes.map(|size| vec![size]).into())
    }
}

impl AnchorGenerator {
    /// Anchors of these sizes on each level, and torchvision's three ratios.
    pub fn with_sizes(sizes: Vec<Vec<f32>>) -> Self {
        Self {
            aspect_ratios: vec![vec![0.5, 1.0, 2.0]; sizes.len()],
            sizes,
            strides: None,
        }
    }

    /// Anchors at each location. torchvision's head has the first level's number for all levels.
    pub fn num_anchors_per_location(&self) -> usize {
        match (self.sizes.first(), self.aspect_ratios.first()) {
            (Some(sizes), Some(ratios)) => sizes.len() * ratios.len(),
            _ => 0,
        }
    }

    /// Checks sizes and ratios.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let (sizes, ratios) = (&self.sizes, &self.aspect_ratios);
        let positive = |values: &[Vec<f32>]| values.iter().flatten().all(|v| is_positive(*v));
        require(positive(sizes), SIZES, sizes, "positive numbers")?;
        require(positive(ratios), RATIOS, ratios, "positive numbers")?;
        let levels = sizes.len();
        require(
            ratios.len() == levels,
            RATIOS,
            ratios,
            format_args!("ratios for {levels} feature maps, as there are sizes"),
        )?;
        let strides = self.strides.as_deref();
        require(
            strides.is_none_or(|s| {
                s.len() == levels && s.iter().all(|s| (1..=MAX_STRIDE).contains(s))
            }),
            STRIDES,
            strides,
            format_args!(
                "numbers of pixels from 1 to {MAX_STRIDE} for {levels} feature maps, or null"
            ),
        )?;
        let levels = sizes.iter().zip(ratios);
        let counts: Vec<usize> = levels.map(|(s, r)| s.len() * r.len()).collect();
        let all = self.num_anchors_per_location();
        require(
            (1..=MAX_ANCHORS).contains(&all) && counts.iter().all(|count| *count == all),
            SIZES,
            sizes,
            format_args!(
                "sizes that with the ratios make the same number of anchors at a location of every \
                 feature map, 1 to {MAX_ANCHORS}, not {counts:?}"
            ),
        )?;
        let corners = (0..sizes.len()).flat_map(|level| self.cell_anchors(level));
        let exact = corners.flatten().all(|corner| corner.abs() <= MAX_SIDE);
        require(
            exact,
            SIZES,
            sizes,
            format_args!("anchors that reach {MAX_SIDE} pixels at most"),
        )
    }

    /// Checks that each feature map has anchors, and that there are no others.
    ///
    /// # Errors
    /// Names the feature maps.
    pub fn validate_levels(&self, levels: &[LevelSpec]) -> Result<(), InvalidField> {
        let names: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        require(
            self.sizes.len() == levels.len(),
            SIZES,
            &self.sizes,
            format_args!(
                "sizes for the {} feature maps of the backbone ({})",
                names.len(),
                names.join(", ")
            ),
        )
    }

    /// Anchors of a level around the origin: ratios outer, sizes inner.
    pub fn cell_anchors(&self, level: usize) -> Vec<BBox> {
        let anchor = |ratio: f32, size: f32| {
            let height = ratio.sqrt();
            let (half_width, half_height) = (1.0 / height * size / 2.0, height * size / 2.0);
            let anchor = [-half_width, -half_height, half_width, half_height];
            match self.strides {
                Some(_) => anchor,
                None => anchor.map(f32::round_ties_even),
            }
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

    /// Anchors of a level over a grid of locations, `stride` pixels apart.
    ///
    /// # Shapes
    /// - output: `[height * width * A, 4]`, row by row, xyxy in pixels of the padded image
    pub fn grid_anchors<B: Backend>(
        &self,
        level: usize,
        grid: Size,
        stride: Size,
        device: &B::Device,
    ) -> Tensor<B, 2> {
        // The first row of the grid; the others have other heights.
        let cell = self.cell_anchors(level);
        let Size { height, width } = grid;
        let mut row = Vec::with_capacity(width * cell.len() * 4);
        for x in (0..width).map(|x| (x * stride.width) as f32) {
            row.extend(cell.iter().flat_map(|b| [b[0] + x, b[1], b[2] + x, b[3]]));
        }
        let n = row.len();
        let row = Tensor::<B, 1>::from_floats(row.as_slice(), device).reshape([1, n]);
        let vertical = Tensor::<B, 2>::from_floats([[0.0, 1.0, 0.0, 1.0]], device);
        let vertical = vertical.repeat(&[height, n / 4]);
        let y = Tensor::<B, 1, Int>::arange(0..height as i64, device) * stride.height as i64;
        (vertical * y.float().reshape([height, 1]) + row).reshape([height * n / 4, 4])
    }
}

impl<B: Backend> RegionProposalNetwork<B> {
    /// Anchors of every level, `[height * width * A, 4]`, for a batch padded to `padded_size`.
    ///
    /// # Panics
    /// When the number of feature maps is not that of the levels of anchors.
    pub fn anchors(&self, features: &FeatureMaps<B>, padded_size: Size) -> Vec<Tensor<B, 2>> {
        let generator = &self.config.anchor_generator;
        let (levels, maps) = (generator.sizes.len(), features.iter().len());
        assert_eq!(maps, levels, "{maps} feature maps, anchors for {levels}");
        features
            .iter()
            .enumerate()
            .map(|(level, (_, map))| {
                let [_, _, height, width] = map.dims();
                let stride = match &generator.strides {
                    Some(strides) => Size::new(strides[level], strides[level]),
                    None => Size::new(padded_size.height / height, padded_size.width / width),
                };
                let grid = Size::new(height, width);
                generator.grid_anchors(level, grid, stride, &map.device())
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
    fn a_generator_that_does_not_fit_the_backbone_is_refused() {
        let fits = |names: &[&str]| {
            let level = |(i, name): (usize, &&str)| LevelSpec::new(*name, 8, 4 << i);
            let levels: Vec<_> = names.iter().enumerate().map(level).collect();
            let fits = AnchorGenerator::default().validate_levels(&levels);
            fits.map_err(|error| error.to_string())
        };
        assert_eq!(fits(&["0", "1", "2", "3", "pool"]), Ok(()));
        let error = fits(&["0"]).unwrap_err();
        assert!(
            error.contains("the 1 feature maps of the backbone (0)"),
            "{error}"
        );
        let error = fits(&["a", "b", "c", "d", "e", "f"]).unwrap_err();
        assert!(
            error.contains("the 6 feature maps of the backbone (a, b, c, d, e, f)"),
            "{error}"
        );
    }

    #[test]
    fn what_describes_no_anchors_is_refused() {
        let validate = |sizes: Vec<Vec<f32>>, aspect_ratios: Vec<Vec<f32>>| {
            let generator = AnchorGenerator {
                sizes,
                aspect_ratios,
                strides: None,
            };
            generator.validate().map_err(|error| error.to_string())
        };
        assert_eq!(AnchorGenerator::default().validate(), Ok(()));
        assert_eq!(validate(vec![vec![1.0, 3.0]], vec![vec![0.01]]), Ok(()));
        let one = || vec![vec![1.0]];
        let uneven = vec![vec![32.0], vec![64.0, 128.0]];
        for (sizes, ratios, says) in [
            (vec![], vec![], "the same number"),
            (vec![vec![]], one(), "the same number"),
            (uneven, vec![vec![1.0]; 2], "the same number"),
            (vec![vec![8.0; 40]], vec![vec![1.0; 40]], "not [1600]"),
            (one(), vec![vec![1.0]; 2], "ratios for 1 feature maps"),
            (vec![vec![0.0]], one(), "sizes = [[0.0]]"),
            (vec![vec![f32::NAN]], one(), "sizes = [[NaN]]"),
            (one(), vec![vec![-1.0]], "aspect_ratios = [[-1.0]]"),
            (one(), vec![vec![f32::INFINITY]], "aspect_ratios = [[inf]]"),
            (vec![vec![1e30]], one(), "16777216 pixels"),
            (vec![vec![1e30]], vec![vec![1e-30]], "16777216 pixels"),
        ] {
            let error = validate(sizes, ratios).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
