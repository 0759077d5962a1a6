//! Frames per second.

use std::fmt;
use std::str::FromStr;

/// Frames per second, as a fraction: `25`, `29.97` or `30000/1001`.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_video as video; }
/// use rcnn_burn::video::Rate;
///
/// let rate: Rate = "30000/1001".parse()?;
/// assert_eq!(format!("{:.2}", rate.seconds(300)), "10.01");
/// assert_eq!("12.5".parse::<Rate>()?.to_string(), "125/10");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    numerator: u32,
    denominator: u32,
}

impl Rate {
    /// The rate of a video that doesn't know its own, which ffmpeg supposes too.
    pub(crate) const USUAL: Self = Self {
        numerator: 25,
        denominator: 1,
    };

    /// Makes a rate of `numerator / denominator` frames per second. `None` if one of them is 0.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        (numerator > 0 && denominator > 0).then_some(Self {
            numerator,
            denominator,
        })
    }

    /// Time in seconds at which a frame is shown.
    pub fn seconds(self, frame: u64) -> f64 {
        frame as f64 * f64::from(self.denominator) / f64::from(self.numerator)
    }

    /// As Y4M has it: `30000:1001`.
    pub(crate) fn with_colon(self) -> String {
        format!("{}:{}", self.numerator, self.denominator)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fraction = || match (text.split_once(['/', ':']), text.split_once('.')) {
            (Some((numerator, denominator)), _) => {
                Self::new(numerator.parse().ok()?, denominator.parse().ok()?)
            }
            (None, Some((whole, decimals))) => {
                let denominator = 10u32.checked_pow(decimals.len().try_into().ok()?)?;
                Self::new(format!("{whole}{decimals}").parse().ok()?, denominator)
            }
            (None, None) => Self::new(text.parse().ok()?, 1),
        };
        fraction().ok_or_else(|| {
            format!("expected frames per second, such as 25, 29.97 or 30000/1001, not {text}")
        })
    }
}
