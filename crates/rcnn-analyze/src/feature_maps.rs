//! Pictures of feature maps.

use globset::Glob;
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use indexmap::IndexSet;
use rcnn_core::image::to_tensor;
use rcnn_core::ops::{DetectionBackend, ForwardHook, LayerOutput};
use rcnn_core::{Backend, Size, StandardFasterRcnn};
use rcnn_image::sheet::Grid;

use crate::AnalyzeError;

/// Output of a layer for one picture, drawn.
#[derive(Debug, Clone)]
pub struct FeatureMap {
    /// The layer's name; where several maps go through it, `@` and the number of the map follow.
    pub name: String,
    /// Its liveliest channels side by side, each from black, its smallest value, to white.
    pub picture: RgbImage,
}

/// Channels of a picture at most, and how many stand in a row.
const CHANNELS: usize = 64;
const COLUMNS: u32 = 8;
/// Pixels that the longer side of a channel has at least, and those between channels.
const SIDE: u32 = 96;
const GAP: u32 = 2;

/// Draws the outputs of layers for a picture: those whose name matches a glob of `patterns`, of as many
/// as [`Analysis`](crate::Analysis) has rows that are maps of the picture.
///
/// # Errors
/// When a pattern is invalid or matches no layer; the error lists the names.
pub fn feature_maps<B: DetectionBackend>(
    model: &StandardFasterRcnn<B>,
    picture: &RgbImage,
    patterns: &[String],
    device: &B::Device,
) -> Result<Vec<FeatureMap>, AnalyzeError> {
    let error = |pattern: &str, reason: String| AnalyzeError::Pattern {
        pattern: pattern.to_string(),
        reason,
    };
    let globs = patterns.iter().map(|pattern| {
        let glob = Glob::new(pattern).map_err(|e| error(pattern, e.kind().to_string()))?;
        Ok(glob.compile_matcher())
    });
    let globs = globs.collect::<Result<Vec<_>, AnalyzeError>>()?;
    let mut drawing = Drawing {
        is_meant: |name: &str| globs.iter().any(|glob| glob.is_match(name)),
        seen: Vec::new(),
        maps: Vec::new(),
    };
    model.detect_with_hook(&[to_tensor::<B>(picture, device)], &mut drawing)?;
    let Drawing { seen, mut maps, .. } = drawing;
    for (glob, pattern) in globs.iter().zip(patterns) {
        if !seen.iter().any(|name| glob.is_match(name)) {
            let known: IndexSet<&str> = seen.iter().map(String::as_str).collect();
            let known: Vec<&str> = known.into_iter().collect();
            let known = known.join(", ");
            let reason = format!("no feature maps of that name; known are {known}");
            return Err(error(pattern, reason));
        }
    }
    // Of several maps of a layer, each gets its number.
    let names: Vec<String> = maps.iter().map(|map| map.name.clone()).collect();
    for (i, map) in maps.iter_mut().enumerate() {
        let same = |names: &[String]| names.iter().filter(|name| **name == map.name).count();
        if same(&names) > 1 {
            map.name = format!("{}@{}", map.name, same(&names[..i]));
        }
    }
    Ok(maps)
}

struct Drawing<F> {
    is_meant: F,
    seen: Vec<String>,
    maps: Vec<FeatureMap>,
}

impl<B: Backend, F: Fn(&str) -> bool> ForwardHook<B> for Drawing<F> {
    fn layer(&mut self, name: &str, output: LayerOutput<B>) {
        // Maps of the one picture, and not the features of its proposals.
        let &[1, channels, height, width] = &output.dims()[..] else {
            return;
        };
        if (self.is_meant)(name) {
            let values: Vec<f32> = output.into_data().iter::<f32>().collect();
            let planes = values.chunks_exact(height * width).take(channels);
            self.maps.push(FeatureMap {
                name: name.to_string(),
                picture: draw(planes.collect(), width as u32, height as u32),
            });
        }
        self.seen.push(name.to_string());
    }
}

/// Draws channels of the same size, those that vary most.
fn draw(mut channels: Vec<&[f32]>, width: u32, height: u32) -> RgbImage {
    let deviation = |plane: &[f32]| {
        let mean = plane.iter().sum::<f32>() / plane.len() as f32;
        plane.iter().map(|v| (v - mean).powi(2)).sum::<f32>()
    };
    channels.sort_by(|a, b| deviation(b).total_cmp(&deviation(a)));
    channels.truncate(CHANNELS);
    let scale = SIDE.div_ceil(width.max(height));
    let cell = Size::from_dimensions((width * scale, height * scale));
    let cells = channels.into_iter().map(|plane| {
        let least = plane.iter().copied().fold(f32::INFINITY, f32::min);
        let most = plane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let range = (most - least).max(f32::MIN_POSITIVE);
        let small = RgbImage::from_fn(width, height, |x, y| {
            let value = plane[(y * width + x) as usize];
            Rgb([((value - least) / range * 255.0) as u8; 3])
        });
        resize(&small, width * scale, height * scale, FilterType::Nearest)
    });
    let grid = Grid {
        columns: COLUMNS,
        cell,
        gap: GAP,
        background: Rgb([64, 96, 160]),
    };
    grid.draw(&cells.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_liveliest_channels_come_first() {
        let (still, lively) = ([1.0; 6], [0.0, 0.0, 1.0, 0.0, 0.0, 0.5]);
        let picture = draw(vec![&still, &lively], 3, 2);
        assert_eq!(picture.dimensions(), (2 * (96 + 2) + 2, 64 + 2 + 2));
        let grey = |x, y| picture.get_pixel(x, y).0[0];
        // The top right corner of the first is its largest value, below it half of it.
        assert_eq!((grey(2, 2), grey(96, 2), grey(96, 60)), (0, 255, 127));
        assert_eq!(grey(150, 30), 0, "a still channel is black");
    }
}
