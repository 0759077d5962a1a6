//! Planes of luma and chroma to RGB and back.
//!
//! As ffmpeg does for such pictures: a chroma sample stands for its whole block of pixels, and is their mean on the way
//! back; luma of 16 to 235 and chroma of 16 to 240 unless the range is full.

use image::RgbImage;
use rcnn_types::Size;

/// The coefficients between RGB and luma with chroma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Matrix {
    /// ITU-R BT.601, of standard definition, and what ffmpeg supposes where nothing is said.
    #[default]
    Bt601,
    /// ITU-R BT.709, of high definition.
    Bt709,
}

impl Matrix {
    /// The weights of red, green and blue in luma.
    fn weights(self) -> [f64; 3] {
        let (red, blue) = match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
        };
        [red, 1.0 - red - blue, blue]
    }
}

/// How many pixels share a sample of chroma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chroma {
    /// There is no chroma.
    Mono,
    /// 2x2.
    C420,
    /// 2x1.
    C422,
    /// One.
    C444,
}

impl Chroma {
    /// Width and height in pixels of what a sample stands for.
    fn block(self) -> (usize, usize) {
        match self {
            Self::C420 => (2, 2),
            Self::C422 => (2, 1),
            Self::C444 | Self::Mono => (1, 1),
        }
    }

    /// Size of a plane of chroma.
    fn plane(self, size: Size) -> Size {
        let (width, height) = self.block();
        match self {
            Self::Mono => Size::new(0, 0),
            _ => Size::new(size.height.div_ceil(height), size.width.div_ceil(width)),
        }
    }

    /// Bytes of a frame: luma and two planes of chroma.
    pub(crate) fn frame_bytes(self, size: Size) -> usize {
        let plane = self.plane(size);
        size.height * size.width + 2 * plane.height * plane.width
    }
}

/// Bits behind the point of the numbers that are computed in.
const BITS: u32 = 16;

fn fixed(value: f64) -> i32 {
    (value * f64::from(1 << BITS)).round() as i32
}

/// How frames are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planes {
    pub(crate) chroma: Chroma,
    pub(crate) matrix: Matrix,
    pub(crate) full_range: bool,
}

impl Planes {
    /// Luma of black, and the spans of luma and chroma relative to 255.
    fn range(self) -> (i32, f64, f64) {
        match self.full_range {
            true => (0, 1.0, 1.0),
            false => (16, 219.0 / 255.0, 224.0 / 255.0),
        }
    }

    /// The picture of a frame of [`Chroma::frame_bytes`].
    pub(crate) fn to_rgb(self, size: Size, frame: &[u8]) -> RgbImage {
        let [red, green, blue] = self.matrix.weights();
        let (black, luma_span, chroma_span) = self.range();
        let luma_gain = fixed(1.0 / luma_span);
        let from_v = fixed(2.0 * (1.0 - red) / chroma_span);
        let from_u = fixed(2.0 * (1.0 - blue) / chroma_span);
        let green_from_u = fixed(-2.0 * blue * (1.0 - blue) / green / chroma_span);
        let green_from_v = fixed(-2.0 * red * (1.0 - red) / green / chroma_span);

        let plane = self.chroma.plane(size);
        let (luma, chroma) = frame.split_at(size.height * size.width);
        let (u, v) = chroma.split_at(plane.height * plane.width);
        let (block_width, block_height) = self.chroma.block();
        let mut pixels = vec![0; 3 * luma.len()];
        let rows = luma
            .chunks_exact(size.width)
            .zip(pixels.chunks_exact_mut(3 * size.width));
        for (y, (luma, pixels)) in rows.enumerate() {
            let chroma = y / block_height * plane.width;
            let (pixels, _) = pixels.as_chunks_mut::<3>();
            for (x, (luma, pixel)) in luma.iter().zip(pixels).enumerate() {
                let light = (i32::from(*luma) - black) * luma_gain + (1 << (BITS - 1));
                let colour = |plane: &[u8]| match self.chroma {
                    Chroma::Mono => 0,
                    _ => i32::from(plane[chroma + x / block_width]) - 128,
                };
                let (u, v) = (colour(u), colour(v));
                let rgb = [
                    light + from_v * v,
                    light + green_from_u * u + green_from_v * v,
                    light + from_u * u,
                ];
                *pixel = rgb.map(|value| (value >> BITS).clamp(0, 255) as u8);
            }
        }
        let (width, height) = size.dimensions();
        RgbImage::from_raw(width, height, pixels).expect("three bytes per pixel")
    }

    /// Appends the frame of a picture.
    pub(crate) fn append_rgb(self, image: &RgbImage, frame: &mut Vec<u8>) {
        let weights = self.matrix.weights();
        let (black, luma_span, chroma_span) = self.range();
        let luma = weights.map(|weight| fixed(weight * luma_span));
        let lift = (black << BITS) + (1 << (BITS - 1));
        let (pixels, _) = image.as_raw().as_chunks::<3>();
        let weigh = |gains: [i32; 3], sums: [i32; 3]| {
            gains[0] * sums[0] + gains[1] * sums[1] + gains[2] * sums[2]
        };
        frame.extend(pixels.iter().map(|pixel| {
            let value = weigh(luma, pixel.map(i32::from)) + lift;
            (value >> BITS).clamp(0, 255) as u8
        }));

        let size = Size::from_dimensions(image.dimensions());
        let plane = self.chroma.plane(size);
        let (block_width, block_height) = self.chroma.block();
        // The difference from luma of blue, and of red.
        for of in [2, 0] {
            let span = chroma_span / (2.0 * (1.0 - weights[of]));
            let mut gains = weights.map(|weight| fixed(-weight * span));
            gains[of] = fixed((1.0 - weights[of]) * span);
            for y in 0..plane.height {
                let rows = y * block_height..((y + 1) * block_height).min(size.height);
                for x in 0..plane.width {
                    let columns = x * block_width..((x + 1) * block_width).min(size.width);
                    let mut sums = [0; 3];
                    for row in rows.clone() {
                        for pixel in &pixels[row * size.width..][columns.clone()] {
                            sums = [0, 1, 2].map(|i| sums[i] + i32::from(pixel[i]));
                        }
                    }
                    // Blocks have one, two or four pixels.
                    let bits = BITS + (rows.len() * columns.len()).ilog2();
                    let value = weigh(gains, sums) + (128 << bits) + (1 << (bits - 1));
                    frame.push((value >> bits).clamp(0, 255) as u8);
                }
            }
        }
    }
}
