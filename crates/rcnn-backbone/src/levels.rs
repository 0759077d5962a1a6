//! The feature maps that a backbone declares, and a check of those that it returns.

use std::fmt;

use burn::tensor::{Tensor, backend::Backend};
use rcnn_types::validate::{InvalidField, require, require_within};

use crate::FeatureMaps;

/// Largest number of channels of a feature map or convolution that a configuration may ask for.
pub const MAX_CHANNELS: usize = 8192;

/// A feature map that a backbone returns: detectron2's `ShapeSpec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelSpec {
    /// Its name; torchvision's are `0`, `1`, ... and `pool`.
    pub name: String,
    /// Its channels, the same for every level.
    pub channels: usize,
    /// Pixels of the image that a location stands for, along each axis.
    pub stride: usize,
}

impl LevelSpec {
    /// Creates a level from its name, its channels and its stride in pixels.
    pub fn new(name: impl Into<String>, channels: usize, stride: usize) -> Self {
        Self {
            name: name.into(),
            channels,
            stride,
        }
    }

    /// Whether a map of this height or width fits the stride, for an image of that height or width.
    /// Networks pad differently: it may be off by half, and by a few locations more.
    fn fits(&self, map: usize, image: usize) -> bool {
        let expected = image.div_ceil(self.stride);
        map > 0 && 2 * map <= 3 * expected + 4 && 2 * expected <= 3 * map + 4
    }
}

impl fmt::Display for LevelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            channels,
            stride,
        } = self;
        write!(f, "{name} ({channels} channels, stride {stride})")
    }
}

/// Checks that a detector can be built on these levels.
///
/// # Errors
/// Returns an error if there is no level, a name is missing or repeated, a coarse level precedes a
/// finer one, or channels differ.
pub fn validate_levels(levels: &[LevelSpec]) -> Result<(), InvalidField> {
    let require = |valid: bool, expected: &str| {
        let found: Vec<String> = levels.iter().map(LevelSpec::to_string).collect();
        require(valid, "levels", found, expected)
    };
    let Some(first) = levels.first() else {
        return require(false, "at least one feature map");
    };
    let named = |(i, level): (usize, &LevelSpec)| {
        let before = &levels[..i];
        !level.name.is_empty() && before.iter().all(|other| other.name != level.name)
    };
    require(
        levels.iter().enumerate().all(named),
        "a name for each feature map, and no name twice",
    )?;
    require(
        levels.iter().all(|level| level.channels == first.channels),
        "the same number of channels in every feature map",
    )?;
    require_within("channels", first.channels, 1..=MAX_CHANNELS)?;
    require(
        first.stride > 0 && levels.is_sorted_by_key(|level| level.stride),
        "the finest feature map first: strides from 1, none smaller than the one before",
    )
}

/// Feature maps that contradict [`Backbone::levels`](crate::Backbone::levels).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "for images of shape {images:?} the backbone returned {}; its `levels()` are {}",
    list(maps.iter().map(|(name, shape)| format!("{name} {shape:?}"))),
    list(levels.iter().map(LevelSpec::to_string))
)]
pub struct FeatureMapsError {
    /// Shape of the batch, `[N, 3, H, W]`.
    pub images: [usize; 4],
    /// Name and shape of each map that was returned.
    pub maps: Vec<(String, [usize; 4])>,
    /// The levels that the backbone declares.
    pub levels: Vec<LevelSpec>,
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.is_empty() {
        true => "no feature maps".to_string(),
        false => items.join(", "),
    }
}

impl<B: Backend> FeatureMaps<B> {
    /// Checks that these maps are those of `levels`, for images of shape `[N, 3, H, W]`.
    ///
    /// # Errors
    /// Returns an error that names both if they are not.
    pub fn validate(
        &self,
        levels: &[LevelSpec],
        images: [usize; 4],
    ) -> Result<(), FeatureMapsError> {
        let [batch, _, height, width] = images;
        let fits = |((name, map), level): ((&str, &Tensor<B, 4>), &LevelSpec)| {
            let [n, channels, h, w] = map.dims();
            (name, n, channels) == (level.name.as_str(), batch, level.channels)
                && level.fits(h, height)
                && level.fits(w, width)
        };
        if self.iter().len() == levels.len() && self.iter().zip(levels).all(fits) {
            return Ok(());
        }
        let maps = self
            .iter()
            .map(|(name, map)| (name.to_string(), map.dims()));
        Err(FeatureMapsError {
            images,
            maps: maps.collect(),
            levels: levels.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use rcnn_ops::backend_types::Flex;

    use super::*;

    fn level(name: &str, channels: usize, stride: usize) -> LevelSpec {
        LevelSpec::new(name, channels, stride)
    }

    #[test]
    fn levels_that_no_detector_can_be_built_on_are_refused() {
        let valid = [level("a", 8, 4), level("b", 8, 4), level("c", 8, 14)];
        assert_eq!(validate_levels(&valid), Ok(()));
        for (levels, says) in [
            (vec![], "levels = []: expected at least one"),
            (vec![level("", 8, 4)], "a name for each"),
            (vec![level("a", 8, 4), level("a", 8, 8)], "no name twice"),
            (
                vec![level("a", 8, 8), level("b", 8, 4)],
                "the finest feature map first",
            ),
            (vec![level("a", 8, 0)], "strides from 1"),
            (
                vec![level("a", 8, 4), level("b", 16, 8)],
                "the same number of channels",
            ),
            (vec![level("a", 0, 4)], "channels = 0: expected 1 to"),
            (
                vec![level("a", usize::MAX, 4)],
                "channels = 18446744073709551615",
            ),
        ] {
            let error = validate_levels(&levels).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn maps_that_contradict_the_levels_are_named_with_them() {
        let levels = [level("a", 2, 4), level("b", 2, 8)];
        let maps = |shapes: &[(&str, [usize; 4])]| {
            let map = |(name, shape): &(&str, [usize; 4])| {
                let map = Tensor::<Flex, 4>::zeros(*shape, &Default::default());
                (name.to_string(), map)
            };
            FeatureMaps::new(shapes.iter().map(map).collect())
        };
        let validate = |shapes: &[_]| maps(shapes).validate(&levels, [1, 3, 64, 96]);
        assert_eq!(
            validate(&[("a", [1, 2, 16, 24]), ("b", [1, 2, 8, 12])]),
            Ok(())
        );
        // Without padding a few locations are lost at the borders.
        assert_eq!(
            validate(&[("a", [1, 2, 13, 21]), ("b", [1, 2, 5, 9])]),
            Ok(())
        );
        for shapes in [
            vec![],
            vec![("a", [1, 2, 16, 24])],
            vec![("a", [1, 2, 16, 24]), ("c", [1, 2, 8, 12])],
            vec![("a", [1, 2, 16, 24]), ("b", [1, 3, 8, 12])],
            vec![("a", [1, 2, 16, 24]), ("b", [2, 2, 8, 12])],
            vec![("a", [1, 2, 8, 12]), ("b", [1, 2, 16, 24])],
            vec![("a", [1, 2, 16, 24]), ("b", [1, 2, 0, 12])],
        ] {
            let error = validate(&shapes).unwrap_err().to_string();
            assert!(error.contains("b (2 channels, stride 8)"), "{error}");
            let returned = match shapes.last() {
                Some((name, shape)) => format!("{name} {shape:?}; its `levels()`"),
                None => "returned no feature maps".to_string(),
            };
            assert!(error.contains(&returned), "{error}");
        }
    }
}
