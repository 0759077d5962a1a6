//! Validation of configurations, field by field.
//!
//! The `validate` of every configuration is made of these functions: an error names the field, the value
//! found and what is expected.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

/// Error for a field of a configuration with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {found}: expected {expected}")]
pub struct InvalidField {
    /// The field, under the name that it has in files: torchvision's where there is one.
    pub field: String,
    /// Its value.
    pub found: String,
    /// The values that are valid.
    pub expected: String,
}

/// Requires that a field is valid.
///
/// # Errors
/// Names the field, its value and what is expected.
pub fn require(
    valid: bool,
    field: &str,
    found: impl Debug,
    expected: impl Display,
) -> Result<(), InvalidField> {
    if valid {
        return Ok(());
    }
    Err(InvalidField {
        field: field.to_string(),
        found: format!("{found:?}"),
        expected: expected.to_string(),
    })
}

/// Requires a field to lie in a range. NaN lies in none.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types as types; }
/// use rcnn_burn::types::validate::require_within;
///
/// let error = require_within("box_nms_thresh", 1.5, 0.0..=1.0).unwrap_err();
/// assert_eq!(error.to_string(), "box_nms_thresh = 1.5: expected 0 to 1");
/// ```
///
/// # Errors
/// As [`require`].
pub fn require_within<T: PartialOrd + Debug + Display>(
    field: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), InvalidField> {
    let (low, high) = (range.start(), range.end());
    let expected = format_args!("{low} to {high}");
    require(range.contains(&value), field, &value, expected)
}

/// Requires a count of at least 1.
///
/// # Errors
/// As [`require`].
pub fn require_some(field: &str, count: usize) -> Result<(), InvalidField> {
    require(count > 0, field, count, "at least 1")
}

/// Requires a number that [`is_positive`].
///
/// # Errors
/// As [`require`].
pub fn require_positive(
    field: &str,
    value: impl Into<f64> + Copy + Debug,
) -> Result<(), InvalidField> {
    require(is_positive(value), field, value, "a positive number")
}

/// Requires IoU thresholds of foreground and background from 0 to 1, the background's not above the other.
///
/// # Errors
/// As [`require`].
pub fn require_iou_thresholds(
    (foreground_field, foreground): (&str, f64),
    (background_field, background): (&str, f64),
) -> Result<(), InvalidField> {
    require_within(foreground_field, foreground, 0.0..=1.0)?;
    require_within(background_field, background, 0.0..=1.0)?;
    require(
        background <= foreground,
        background_field,
        background,
        format_args!("at most {foreground}, which is {foreground_field}"),
    )
}

/// Whether a number is 0 or positive ([`is_positive`]), as weights are.
pub fn is_weight(value: impl Into<f64>) -> bool {
    let value = value.into();
    value == 0.0 || is_positive(value)
}

/// Whether a number is positive and neither it nor its inverse infinite in single precision, which
/// the network computes in.
pub fn is_positive(value: impl Into<f64>) -> bool {
    (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_in_no_range() {
        for value in [f64::NAN, f64::INFINITY, -0.1, 1.1] {
            assert!(
                require_within("rpn_nms_thresh", value, 0.0..=1.0).is_err(),
                "{value}"
            );
        }
        for value in [0.0, 1.0] {
            assert_eq!(require_within("rpn_nms_thresh", value, 0.0..=1.0), Ok(()));
        }
    }

    #[test]
    fn a_number_whose_inverse_is_infinite_is_not_positive() {
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
            assert!(!is_positive(value), "{value}");
        }
        assert!(!is_positive(1e300) && is_positive(f32::MIN_POSITIVE));
    }
}
