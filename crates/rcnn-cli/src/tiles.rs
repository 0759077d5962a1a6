//! Detection in tiles and other views of a picture: their options, and pictures that are read part by part.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args, ValueEnum};
use image::RgbImage;
use indicatif::ProgressBar;
use rcnn_burn::image::{ImageError, ImageErrorKind, open_rgb, to_tensor};
use rcnn_burn::ops::DetectionBackend;
use rcnn_burn::tile::{
    Merge, MergeMethod, OverlapMetric, TestTimeAugmentation, TileGrid, Views, Window,
};
use rcnn_burn::{FasterRcnnConfig, Instances, StandardFasterRcnn};
use rcnn_image::{StripReader, crop};
use rcnn_types::Size;

use crate::progress::tell_part;
use crate::source::positive;
use crate::thresholds::unit;

/// Score below which detections of tiles are not united by default, as it is SAHI's rule: boxes would grow by bad ones.
const LOW_SCORE: f32 = 0.1;

/// Options of detection in tiles and other views of a picture.
#[derive(Args)]
#[command(next_help_heading = "Large pictures and several views")]
#[command(group(ArgGroup::new("views").args(["tile", "tta"]).multiple(true)))]
pub(crate) struct TileArgs {
    /// Detect in overlapping tiles of N x N pixels, for objects that are too small once the whole picture is resized
    #[arg(long, value_name = "N", value_parser = positive)]
    tile: Option<usize>,
    /// Share of a tile that overlaps with its neighbour, from 0 to below 1; choose it wider than the objects, so
    /// that each is whole in some tile
    #[arg(
        long,
        value_name = "F",
        default_value = "0.2",
        requires = "tile",
        hide_short_help = true
    )]
    overlap: f64,
    /// Detect in the whole picture, too, for objects larger than a tile
    #[arg(long, requires = "tile", hide_short_help = true)]
    full_image: bool,
    /// Detect in mirrored and resized copies, too (test-time augmentation): flip, scale:0.8,1.2 or
    /// flip,scale:0.8,1.2, which makes six views
    #[arg(long, value_name = "LIST", hide_short_help = true)]
    tta: Option<TestTimeAugmentation>,
    /// How to merge detections of the same object, within a class (across classes with --class-agnostic-nms)
    /// [default: nmm for tiles, unless --score-thresh is below 0.1, where poor boxes would enlarge good ones; wbf for
    /// --tta without tiles; else nms]
    #[arg(long, value_enum, requires = "views", hide_short_help = true)]
    merge: Option<MergeName>,
    /// Measure of the overlap of two detections [default: ios for nmm, else iou]
    #[arg(
        long = "match",
        value_name = "METRIC",
        value_enum,
        requires = "views",
        hide_short_help = true
    )]
    metric: Option<MetricName>,
    /// Overlap from which on two detections match [default: 0.5, for wbf 0.55]
    #[arg(long, value_name = "F", value_parser = unit::<f64>, requires = "views", hide_short_help = true)]
    match_thresh: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MergeName {
    /// Keep the best detection
    Nms,
    /// Unite the boxes, which joins objects cut by a tile's border (SAHI's greedy NMM)
    Nmm,
    /// Average the boxes, weighted by score (weighted boxes fusion)
    Wbf,
    /// Lower the scores of the others (Gaussian Soft-NMS)
    SoftNms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MetricName {
    /// Intersection over union
    Iou,
    /// Intersection over the smaller box, so that a part matches the whole
    Ios,
}

impl TileArgs {
    /// The views of each picture; `None` where it is looked at as it is.
    pub(crate) fn views(
        &self,
        config: &FasterRcnnConfig,
        batch_size: usize,
    ) -> Result<Option<Views>> {
        if self.tile.is_none() && self.tta.is_none() {
            return Ok(None);
        }
        let tiles = self.tile.map(|side| grid(side, self.overlap)).transpose()?;
        let roi_heads = &config.roi_heads;
        let name = self.merge.unwrap_or(match self.tile {
            None => MergeName::Wbf,
            Some(_) if roi_heads.score_thresh < LOW_SCORE => MergeName::Nms,
            Some(_) => MergeName::Nmm,
        });
        if name == MergeName::SoftNms && self.metric == Some(MetricName::Ios) {
            bail!("--match ios: not with --merge soft-nms, which uses the IoU");
        }
        let method = match name {
            MergeName::Nms => MergeMethod::Nms,
            MergeName::Nmm => MergeMethod::Nmm,
            MergeName::Wbf => MergeMethod::Wbf,
            MergeName::SoftNms => MergeMethod::SoftNms {
                sigma: 0.5,
                score_threshold: roi_heads.score_thresh,
            },
        };
        let metric = self.metric.unwrap_or(match name {
            MergeName::Nmm => MetricName::Ios,
            _ => MetricName::Iou,
        });
        let views = Views {
            tiles,
            full_image: self.full_image,
            augmentation: self.tta.clone().unwrap_or_default(),
            merge: Merge {
                method,
                metric: match metric {
                    MetricName::Iou => OverlapMetric::Iou,
                    MetricName::Ios => OverlapMetric::Ios,
                },
                threshold: self.match_thresh.unwrap_or(match name {
                    MergeName::Wbf => 0.55,
                    _ => 0.5,
                }),
                class_agnostic: roi_heads.nms_class_agnostic,
            },
            batch_size,
        };
        views.validate()?;
        Ok(Some(views))
    }
}

/// Whether pictures are looked at in tiles alone, and so need not be held whole.
pub(crate) fn in_tiles_alone(views: Option<&Views>) -> bool {
    views.is_some_and(|views| views.tiles.is_some() && !views.full_image)
}

/// The end of what is said of a picture that cannot be read.
pub(crate) fn help(error: &ImageError) -> &'static str {
    match error.kind {
        ImageErrorKind::TooLarge { .. } => {
            " (an upright TIFF of strips or tiles is read part by part with --tile, without --full-image and \
             --output)"
        }
        _ => "",
    }
}

/// A grid of tiles of that side.
pub(crate) fn grid(side: usize, overlap: f64) -> Result<TileGrid> {
    let side = u32::try_from(side).with_context(|| format!("--tile {side}: too many pixels"))?;
    let grid = TileGrid { side, overlap };
    grid.validate()?;
    Ok(grid)
}

/// The pixels of a picture whose parts are looked at.
pub(crate) enum Pixels {
    Whole(RgbImage),
    /// One that is too large to be held, of which a few rows are.
    Strips(StripReader),
}

/// Pixels from which on a picture is not read whole where it need not be: 200 MB of RGB.
const MOST_HELD: usize = 1 << 26;

impl Pixels {
    /// Opens a picture. With `in_parts`, a large one is read as its parts are asked for, where its format allows.
    pub(crate) fn open(path: &Path, in_parts: bool) -> Result<Self, ImageError> {
        let strips = match in_parts {
            true => StripReader::open(path)?.filter(|strips| strips.size().pixels() > MOST_HELD),
            false => None,
        };
        Ok(match strips {
            Some(strips) => Self::Strips(strips),
            None => Self::Whole(open_rgb(path)?),
        })
    }

    pub(crate) fn size(&self) -> Size {
        match self {
            Self::Whole(picture) => Size::from_dimensions(picture.dimensions()),
            Self::Strips(strips) => strips.size(),
        }
    }

    /// Finds its objects in several views.
    pub(crate) fn look<B: DetectionBackend>(
        &mut self,
        model: &StandardFasterRcnn<B>,
        views: &Views,
        progress: &ProgressBar,
        device: &B::Device,
    ) -> Result<Instances> {
        let size = self.size();
        let read = |window| anyhow::Ok(to_tensor(&self.window(window)?, device));
        views.detect(model, size, read, |done, all| {
            tell_part(progress, done, all)
        })
    }

    /// The pixels of a window.
    fn window(&mut self, window: Window) -> Result<RgbImage, ImageError> {
        match self {
            Self::Whole(picture) => Ok(crop(picture, window)),
            Self::Strips(strips) => strips.window(window),
        }
    }
}
