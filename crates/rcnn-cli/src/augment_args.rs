//! The augmentation of training images, as the command line has it.

use std::str::FromStr;

use clap::{Args, value_parser};
use rcnn_data::Augmentation;
use rcnn_data::augment::{FixedSizeCrop, IouCrop, Photometric, ScaleJitter};
use rcnn_types::Size;

use crate::thresholds::unit;

/// What is done to training images. What is not given stays as it was.
#[derive(Args)]
#[command(next_help_heading = "Augmentation")]
pub(crate) struct AugmentArgs {
    /// Probability of a horizontal flip [default: 0.5]
    #[arg(long, value_name = "P", value_parser = unit::<f64>, hide_short_help = true)]
    horizontal_flip: Option<f64>,
    /// Probability of a vertical flip, for pictures without a fixed up and down [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>, hide_short_help = true)]
    vertical_flip: Option<f64>,
    /// Pixels to resize the shorter side to, one of them drawn at random, such as 640,720,800
    /// [default: the model's]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = value_parser!(u32).range(1..), hide_short_help = true)]
    min_sizes: Option<Vec<u32>>,
    /// Probability of a crop that keeps objects, as for SSD [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>, hide_short_help = true)]
    crop: Option<f64>,
    /// Scale each image by a random factor from this range, relative to what fits --fixed-size (torchvision's
    /// large-scale jitter, with the range 0.1,2)
    #[arg(long, value_name = "MIN,MAX", value_parser = pair::<f32>, hide_short_help = true)]
    scale_jitter: Option<[f32; 2]>,
    /// Crop or pad each image to this size, in pixels, and train at it
    #[arg(long, value_name = "HEIGHT,WIDTH", value_parser = pair::<usize>, hide_short_help = true)]
    fixed_size: Option<[usize; 2]>,
    /// Probability of each change of colour: brightness, contrast, saturation, hue, channel order
    /// [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>, hide_short_help = true)]
    photometric: Option<f64>,
    /// Probability that four images are combined into one [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>, hide_short_help = true)]
    mosaic: Option<f64>,
    /// Probability that objects of another image are pasted in, along their masks [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>, hide_short_help = true)]
    copy_paste: Option<f64>,
}

impl AugmentArgs {
    /// Overrides what was given. Ranges of crops and colours stay.
    pub(crate) fn apply(&self, augmentation: &mut Augmentation) {
        if let Some(p) = self.horizontal_flip {
            augmentation.horizontal_flip = p;
        }
        if let Some(p) = self.vertical_flip {
            augmentation.vertical_flip = p;
        }
        if let Some(sizes) = &self.min_sizes {
            augmentation.min_sizes.clone_from(sizes);
        }
        if let Some(p) = self.crop {
            let others = augmentation.crop.take().unwrap_or_default();
            augmentation.crop = (p > 0.0).then_some(IouCrop { p, ..others });
        }
        if let Some([height, width]) = self.fixed_size {
            let others = augmentation.fixed_size_crop.take().unwrap_or_default();
            let size = Size::new(height, width);
            augmentation.fixed_size_crop = Some(FixedSizeCrop { size, ..others });
        }
        if let Some(scale_range) = self.scale_jitter {
            let window = augmentation.fixed_size_crop.clone().unwrap_or_default();
            let others = augmentation.scale_jitter.take();
            let target_size = match (others, self.fixed_size) {
                (Some(others), None) => others.target_size,
                _ => window.size,
            };
            augmentation.scale_jitter = Some(ScaleJitter {
                target_size,
                scale_range,
            });
        }
        if let Some(p) = self.photometric {
            let others = augmentation.photometric.take().unwrap_or_default();
            augmentation.photometric = (p > 0.0).then_some(Photometric { p, ..others });
        }
        if let Some(p) = self.mosaic {
            augmentation.mosaic = p;
        }
        if let Some(p) = self.copy_paste {
            augmentation.copy_paste = p;
        }
    }
}

/// Two numbers with a comma between.
fn pair<T: FromStr>(text: &str) -> Result<[T; 2], String> {
    let numbers = text.split_once(',').and_then(|(first, second)| {
        let [first, second] = [first, second].map(|number| number.trim().parse().ok());
        Some([first?, second?])
    });
    numbers.ok_or_else(|| "expected two numbers with a comma between".to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        augment: AugmentArgs,
    }

    /// What the arguments make of a crop of 5 trials and images that are never flipped.
    fn applied(arguments: &[&str]) -> Augmentation {
        let crop = IouCrop {
            trials: 5,
            ..IouCrop::default()
        };
        let mut augmentation = Augmentation {
            crop: Some(crop),
            ..Augmentation::none()
        };
        let command = Command::parse_from([&["rcnn"], arguments].concat());
        command.augment.apply(&mut augmentation);
        augmentation
    }

    #[test]
    fn what_is_not_given_stays() {
        let before = applied(&[]);
        let crop = before.crop.as_ref().expect("a crop");
        assert_eq!((crop.trials, before.horizontal_flip), (5, 0.0));
        let some = applied(&["--crop", "0.25", "--photometric", "0.1"]);
        let crop = some.crop.expect("a crop");
        assert_eq!((crop.trials, crop.p), (5, 0.25));
        assert_eq!(some.photometric.expect("colours").p, 0.1);
        let none = applied(&["--crop", "0", "--min-sizes", "640,800", "--mosaic", "1"]);
        assert_eq!((none.crop, none.mosaic), (None, 1.0));
        assert_eq!(none.min_sizes, [640, 800]);
        let jittered = applied(&["--fixed-size", "480,640", "--scale-jitter", "0.5,2"]);
        let jitter = jittered.scale_jitter.expect("a jitter");
        assert_eq!(jitter.target_size, Size::new(480, 640));
        assert_eq!(jitter.scale_range, [0.5, 2.0]);
        assert!(
            jittered
                .fixed_size_crop
                .is_some_and(|window| window.size == jitter.target_size)
        );
        assert!(pair::<f32>("0.5").is_err() && pair::<usize>("3,x").is_err());
    }
}
