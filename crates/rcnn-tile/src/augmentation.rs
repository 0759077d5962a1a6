//! Test-time augmentation: mirrored and resized views of the same picture.

use std::str::FromStr;

use rcnn_types::validate::{InvalidField, require, require_within};

/// Smallest and largest scale.
const SCALES: [f32; 2] = [0.1, 10.0];

/// Mirrored and resized views of an image, detected in besides the image itself; none by default.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_tile as tile; pub use rcnn_types::*; }
/// use rcnn_burn::tile::TestTimeAugmentation;
///
/// let augmentation: TestTimeAugmentation = "flip,scale:0.8,1.2".parse()?;
/// assert!(augmentation.flip);
/// assert_eq!(augmentation.scales, [0.8, 1.2]);
/// # Ok::<(), rcnn_types::validate::InvalidField>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TestTimeAugmentation {
    /// Whether every view is also taken mirrored left to right.
    pub flip: bool,
    /// Sizes to which the image is brought too, as factors of that which the detector's transform brings it to.
    pub scales: Vec<f32>,
}

/// One way to look at an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    pub(crate) scale: f32,
    pub(crate) flip: bool,
}

impl TestTimeAugmentation {
    /// Checks the scales.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let [least, most] = SCALES;
        let mut scales = self.scales.iter();
        scales.try_for_each(|&scale| require_within("tta scale", scale, least..=most))
    }

    /// All views, the image itself first.
    pub(crate) fn views(&self) -> Vec<View> {
        let mut scales = vec![1.0];
        for &scale in &self.scales {
            if !scales.contains(&scale) {
                scales.push(scale);
            }
        }
        let flips = if self.flip {
            &[false, true][..]
        } else {
            &[false]
        };
        let views = scales
            .iter()
            .flat_map(|&scale| flips.iter().map(move |&flip| View { scale, flip }));
        views.collect()
    }
}

/// From a list such as `flip`, `scale:0.8,1.2` or both with a comma between.
impl FromStr for TestTimeAugmentation {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let mut parsed = Self::default();
        let mut in_scales = false;
        for item in text.split(',').map(str::trim) {
            let number = item.strip_prefix("scale:");
            in_scales |= number.is_some();
            match number.unwrap_or(item).parse() {
                Ok(scale) if in_scales => parsed.scales.push(scale),
                _ if item == "flip" => (parsed.flip, in_scales) = (true, false),
                _ => require(
                    false,
                    "tta",
                    item,
                    "flip, or scale: and numbers, as in flip,scale:0.8,1.2",
                )?,
            }
        }
        parsed.validate()?;
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_and_faults_named() {
        let views = |text: &str| {
            let parsed: TestTimeAugmentation = text.parse().unwrap();
            let view = |view: View| (view.scale, view.flip);
            parsed.views().into_iter().map(view).collect::<Vec<_>>()
        };
        assert_eq!(views("flip"), [(1.0, false), (1.0, true)]);
        assert_eq!(
            views("scale:0.8, 1.2"),
            [(1.0, false), (0.8, false), (1.2, false)]
        );
        let all = [(1.0, false), (1.0, true), (2.0, false), (2.0, true)];
        assert_eq!(views("scale:1,2,flip"), all);
        let fault = |text: &str| {
            text.parse::<TestTimeAugmentation>()
                .unwrap_err()
                .to_string()
        };
        for text in [
            "",
            "flop",
            "0.8",
            "scale:",
            "flip,0.8",
            "scale:0.8,flip,1.2",
        ] {
            assert!(fault(text).starts_with("tta = "), "{text}");
        }
        for text in ["scale:0", "scale:-1", "scale:NaN", "scale:11"] {
            assert!(fault(text).starts_with("tta scale = "), "{text}");
        }
    }
}
