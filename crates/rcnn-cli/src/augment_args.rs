//! The augmentation of training images, as the command line has it.

use clap::{Args, value_parser};
use rcnn_data::Augmentation;
use rcnn_data::augment::{IouCrop, Photometric};

use crate::detect::unit;

/// What is done to training images. What is not given stays as it was.
#[derive(Args)]
#[command(next_help_heading = "Augmentation")]
pub(crate) struct AugmentArgs {
    /// Probability of a horizontal flip [default: 0.5]
    #[arg(long, value_name = "P", value_parser = unit::<f64>)]
    horizontal_flip: Option<f64>,
    /// Pixels that the shorter side is resized to, one of these by chance, such as 640,720,800
    /// [default: the model's]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = value_parser!(u32).range(1..))]
    min_sizes: Option<Vec<u32>>,
    /// Probability of a crop that keeps objects, as SSD takes them [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>)]
    crop: Option<f64>,
    /// Probability of each change of colours: brightness, contrast, saturation, hue, channels
    /// [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>)]
    photometric: Option<f64>,
    /// Probability that four images become one [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>)]
    mosaic: Option<f64>,
    /// Probability that objects of another image are pasted in, along their masks [default: 0]
    #[arg(long, value_name = "P", value_parser = unit::<f64>)]
    copy_paste: Option<f64>,
}

impl AugmentArgs {
    /// Overrides what was given. Ranges of crops and colours stay.
    pub(crate) fn apply(&self, augmentation: &mut Augmentation) {
        if let Some(p) = self.horizontal_flip {
            augmentation.horizontal_flip = p;
        }
        if let Some(sizes) = &self.min_sizes {
            augmentation.min_sizes.clone_from(sizes);
        }
        if let Some(p) = self.crop {
            let others = augmentation.crop.take().unwrap_or_default();
            augmentation.crop = (p > 0.0).then_some(IouCrop { p, ..others });
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
    }
}
