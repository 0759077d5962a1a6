//! Changes of colours as SSD makes them: `RandomPhotometricDistort` of torchvision.

use image::RgbImage;
use rand::Rng;
use rand::seq::SliceRandom;
use rcnn_types::validate::{InvalidField, require_within};
use serde::{Deserialize, Serialize};

use super::{between, chance, range};

/// Brightness, contrast, saturation, hue and the order of channels, each with a probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Photometric {
    /// The probability of each change.
    pub p: f64,
    /// The range of the factor of all values.
    pub brightness: [f32; 2],
    /// The range of the factor of the distance from the mean grey.
    pub contrast: [f32; 2],
    /// The range of the factor of the distance from a pixel's own grey.
    pub saturation: [f32; 2],
    /// The range of the turn of the hue, from -0.5 to 0.5 of the circle.
    pub hue: [f32; 2],
}

impl Default for Photometric {
    fn default() -> Self {
        Self {
            p: 0.5,
            brightness: [0.875, 1.125],
            contrast: [0.5, 1.5],
            saturation: [0.5, 1.5],
            hue: [-0.05, 0.05],
        }
    }
}

/// A colour from 0 to 1.
type Colour = [f32; 3];

impl Photometric {
    pub(super) fn validate(&self) -> Result<(), InvalidField> {
        require_within("photometric.p", self.p, 0.0..=1.0)?;
        range("photometric.brightness", self.brightness, [0.0, f32::MAX])?;
        range("photometric.contrast", self.contrast, [0.0, f32::MAX])?;
        range("photometric.saturation", self.saturation, [0.0, f32::MAX])?;
        range("photometric.hue", self.hue, [-0.5, 0.5])
    }

    pub(super) fn apply(&self, image: &mut RgbImage, rng: &mut impl Rng) {
        let mut draw = |bounds| chance(self.p, rng).then(|| between(bounds, rng));
        let brightness = draw(self.brightness);
        let contrast = draw(self.contrast);
        let saturation = draw(self.saturation);
        let hue = draw(self.hue);
        let contrast_first = chance(0.5, rng);
        let mut channels = [0, 1, 2];
        if chance(self.p, rng) {
            channels.shuffle(rng);
        }

        let pixels = image
            .pixels()
            .map(|pixel| pixel.0.map(|v| f32::from(v) / 255.0));
        let mut pixels: Vec<Colour> = pixels.collect();
        if let Some(factor) = brightness {
            pixels.iter_mut().for_each(|c| *c = blend(*c, 0.0, factor));
        }
        if let Some(factor) = contrast.filter(|_| contrast_first) {
            adjust_contrast(&mut pixels, factor);
        }
        if let Some(factor) = saturation {
            pixels
                .iter_mut()
                .for_each(|c| *c = blend(*c, grey(*c), factor));
        }
        if let Some(turn) = hue {
            pixels.iter_mut().for_each(|c| *c = turn_hue(*c, turn));
        }
        if let Some(factor) = contrast.filter(|_| !contrast_first) {
            adjust_contrast(&mut pixels, factor);
        }
        for (pixel, colour) in image.pixels_mut().zip(pixels) {
            pixel.0 = channels.map(|channel| (colour[channel] * 255.0).round() as u8);
        }
    }
}

/// A colour at `factor` of its distance from a grey.
fn blend(colour: Colour, grey: f32, factor: f32) -> Colour {
    colour.map(|v| (v * factor + grey * (1.0 - factor)).clamp(0.0, 1.0))
}

fn grey([r, g, b]: Colour) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

fn adjust_contrast(pixels: &mut [Colour], factor: f32) {
    let sum: f64 = pixels.iter().map(|c| f64::from(grey(*c))).sum();
    let mean = (sum / pixels.len().max(1) as f64) as f32;
    pixels.iter_mut().for_each(|c| *c = blend(*c, mean, factor));
}

/// Turns the hue by a share of the circle, by way of HSV.
fn turn_hue(colour @ [r, g, b]: Colour, turn: f32) -> Colour {
    let most = r.max(g).max(b);
    let least = r.min(g).min(b);
    if most == least {
        return colour;
    }
    let saturation = (most - least) / most;
    let [rc, gc, bc] = colour.map(|v| (most - v) / (most - least));
    let sector = if most == r {
        bc - gc
    } else if most == g {
        2.0 + rc - bc
    } else {
        4.0 + gc - rc
    };
    let hue = (sector / 6.0 + turn).rem_euclid(1.0) * 6.0;
    let part = hue.fract();
    let p = most * (1.0 - saturation);
    let q = most * (1.0 - saturation * part);
    let t = most * (1.0 - saturation * (1.0 - part));
    match hue as u8 {
        1 => [q, most, p],
        2 => [p, most, t],
        3 => [p, q, most],
        4 => [t, p, most],
        5 => [most, p, q],
        _ => [most, t, p],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Colour, b: Colour) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6)
    }

    /// Values of torchvision's adjust functions on float images.
    #[test]
    fn as_torchvision() {
        let colours = [
            [0.2, 0.5, 0.9],
            [0.8, 0.1, 0.3],
            [0.4, 0.7, 0.1],
            [0.5, 0.5, 0.5],
        ];
        let turned = [
            [0.2, 0.332, 0.9],
            [0.8, 0.1, 0.132],
            [0.256, 0.7, 0.1],
            [0.5, 0.5, 0.5],
        ];
        for (colour, expected) in colours.into_iter().zip(turned) {
            assert!(close(turn_hue(colour, 0.04), expected), "{colour:?}");
        }
        let mut pixels = colours.to_vec();
        adjust_contrast(&mut pixels, 1.4);
        for (colour, expected) in pixels.into_iter().zip([
            [0.097029, 0.517029, 1.0],
            [0.937029, 0.0, 0.237029],
            [0.377029, 0.797029, 0.0],
            [0.517029; 3],
        ]) {
            assert!(close(colour, expected), "{colour:?}");
        }
        for (colour, expected) in colours.into_iter().zip([
            [0.302352, 0.482352, 0.722352],
            [0.612808, 0.192808, 0.312808],
            [0.456744, 0.636744, 0.276744],
            [0.49998; 3],
        ]) {
            assert!(
                close(blend(colour, grey(colour), 0.6), expected),
                "{colour:?}"
            );
        }
    }
}
