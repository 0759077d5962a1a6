//! The errors in each image, and a contact sheet of the worst images.

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};
use rcnn_image::draw::{
    Align, BLACK, Canvas, PALE, Pen, WHITE, draw_keypoints, draw_mask, fit, legible, text_width,
};
use rcnn_image::sheet::{Grid, shrink};
use rcnn_types::{BBox, Instance, Keypoints, Mask, Size, Skeleton};

use crate::Evaluation;
use crate::engine::MatchResult;
use crate::input::Sample;

/// True positives and errors of an image, with the detections from their class's best threshold on.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageErrors {
    /// The image's id.
    pub image_id: u64,
    /// The name of its file.
    pub file_name: String,
    /// The detections that are right, the best scores first.
    pub found: Vec<Mark>,
    /// The objects without such a detection.
    pub missed: Vec<Mark>,
    /// The detections without an object of their class, the best scores first.
    pub false_positives: Vec<Mark>,
}

/// An object or detection to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Its box, xyxy in pixels.
    pub bbox: BBox,
    /// Its class.
    pub label: usize,
    /// The score of a detection.
    pub score: Option<f32>,
    /// Its mask.
    pub mask: Option<Mask>,
    /// Its keypoints.
    pub keypoints: Option<Keypoints>,
}

impl Mark {
    fn new(object: Instance, score: Option<f32>) -> Self {
        Self {
            bbox: object.bbox,
            label: object.label,
            score,
            mask: object.mask.cloned(),
            keypoints: object.keypoints.cloned(),
        }
    }
}

impl ImageErrors {
    /// The number of missed objects and false positives.
    pub fn count(&self) -> usize {
        self.missed.len() + self.false_positives.len()
    }
}

impl Evaluation {
    /// Up to `most` images with errors, those with the most first.
    pub fn worst(&self, most: usize) -> Vec<&ImageErrors> {
        let errors = self.errors.iter();
        let mut worst: Vec<_> = errors.filter(|image| image.count() > 0).collect();
        worst.sort_by_key(|image| std::cmp::Reverse(image.count()));
        worst.truncate(most);
        worst
    }
}

/// The errors in each sample; `thresholds` are those of label 1 on.
pub(crate) fn errors(
    samples: &[Sample],
    matches: &[Vec<MatchResult>],
    thresholds: &[f32],
) -> Vec<ImageErrors> {
    let image = |(sample, matches): (&Sample, &Vec<MatchResult>)| {
        let (truth, found) = (sample.truth(), sample.found);
        let mut is_missed = vec![true; truth.len()];
        let (mut true_positives, mut false_positives) = (Vec::new(), Vec::new());
        let mut ranked: Vec<_> = found.iter().zip(matches).collect();
        ranked.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score));
        for (object, result) in ranked {
            if object.score < thresholds[object.label - 1] {
                continue;
            }
            let mark = Mark::new(object, Some(object.score));
            match *result {
                MatchResult::TruePositive(object) => {
                    is_missed[object] = false;
                    true_positives.push(mark);
                }
                MatchResult::FalsePositive => false_positives.push(mark),
                MatchResult::Ignored => {}
            }
        }
        let missed = truth.objects().filter(|&index| is_missed[index]);
        let missed = missed.map(|index| Mark::new(truth.get(index), None));
        ImageErrors {
            image_id: sample.image.image_id,
            file_name: sample.image.file_name.clone(),
            missed: missed.collect(),
            found: true_positives,
            false_positives,
        }
    };
    samples.iter().zip(matches).map(image).collect()
}

/// A picture of a contact sheet.
#[derive(Debug, Clone)]
pub struct Tile {
    /// The picture, which is shrunk to fit.
    pub picture: RgbImage,
    /// The line below it.
    pub title: String,
    /// Notes below that, each with the colour of what it is about.
    pub notes: Vec<(Rgb<u8>, String)>,
}

/// Largest size of a tile's picture.
const PICTURE: Size = Size::new(300, 400);
/// Tiles in a row.
const COLUMNS: u32 = 4;
/// The room around a tile, and the height of a line of text.
const MARGIN: u32 = 12;
const TEXT: u32 = 22;
const MISSED: Rgb<u8> = Rgb([225, 0, 150]);
const WRONG: Rgb<u8> = Rgb([255, 190, 0]);
const FOUND: Rgb<u8> = Rgb([0, 150, 110]);

/// An image as a tile shows it: shrunk, or enlarged by a whole number so that masks of small images can be seen.
fn fitted(image: &RgbImage) -> RgbImage {
    let ((width, height), (most_w, most_h)) = (image.dimensions(), PICTURE.dimensions());
    let times = (most_w / width.max(1)).min(most_h / height.max(1));
    match image.is_empty() || times < 2 {
        true => shrink(image, PICTURE),
        false => resize(image, width * times, height * times, FilterType::Nearest),
    }
}

impl Tile {
    /// An image with its errors marked: boxes, and masks and keypoints where there are some, with the lines of
    /// the skeletons, which are given by label. The notes count false positives, missed and found objects, each
    /// in the colour of its marks.
    pub fn from_errors(image: &RgbImage, errors: &ImageErrors, skeletons: &[Skeleton]) -> Self {
        let mut canvas = Canvas(fitted(image));
        let size = Size::from_dimensions(canvas.0.dimensions());
        let scale = |small: u32, large: u32| f64::from(small) / f64::from(large.max(1));
        let across = scale(canvas.0.width(), image.width());
        let down = scale(canvas.0.height(), image.height());
        // Any box has finite edges, but not all are near the picture.
        let pixel = |v: f64| v.round().clamp(-99.0, 9999.0) as i64;
        let kinds = [
            (&errors.found, FOUND, 1, "found"),
            (&errors.missed, MISSED, 2, "missed"),
            (&errors.false_positives, WRONG, 2, "false"),
        ];
        for (marks, colour, line, _) in kinds {
            let pen = Pen {
                colour,
                shade: BLACK,
                line,
                edge: 1,
            };
            for mark in marks {
                if let Some(mask) = &mark.mask {
                    draw_mask(&mut canvas, &mask.resize(size), pen);
                }
                if let Some(mut keypoints) = mark.keypoints.clone() {
                    keypoints.scale(across as f32, down as f32);
                    let edges = skeletons.get(mark.label);
                    let edges = edges.map_or(&[][..], |skeleton| &skeleton.edges);
                    draw_keypoints(&mut canvas, &keypoints, edges, pen);
                }
                let [x1, y1, x2, y2] = mark.bbox.map(f64::from);
                let [x1, y1, x2, y2] = [x1 * across, y1 * down, x2 * across, y2 * down].map(pixel);
                let bounds = [x1, y1, x2.max(x1 + 3), y2.max(y1 + 3)];
                let [x1, y1, x2, y2] = bounds;
                canvas.frame([x1 - 1, y1 - 1, x2 + 1, y2 + 1], line + 2, BLACK);
                canvas.frame(bounds, line, colour);
            }
        }
        let notes = kinds.iter().rev();
        let notes =
            notes.map(|(marks, colour, _, what)| (*colour, format!("{} {what}", marks.len())));
        Self {
            picture: canvas.0,
            title: legible(&errors.file_name, errors.image_id).into_owned(),
            notes: notes.collect(),
        }
    }

    /// The picture in its frame, with the title and the notes below it.
    fn draw(&self) -> RgbImage {
        let (width, height) = PICTURE.dimensions();
        let mut canvas = Canvas::new(width, height + 2 * TEXT + MARGIN);
        canvas.fill(0, 0, [width.into(), height.into()], PALE);
        let picture = shrink(&self.picture, PICTURE);
        let left = (width - picture.width()) / 2;
        let top = (height - picture.height()) / 2;
        replace(&mut canvas.0, &picture, left.into(), top.into());

        let title = fit(&self.title, 14.0, width as f32);
        let middle = (height + TEXT / 2 + 2) as f32;
        canvas.text([0.0, middle], Align::Left, &title, 14.0, BLACK);
        let (mut x, y) = (0, i64::from(height + TEXT + 2));
        for (colour, note) in &self.notes {
            canvas.fill(x, y + 5, [13, 13], BLACK);
            canvas.fill(x + 1, y + 6, [11, 11], *colour);
            let room = (i64::from(width) - x - 19).max(0) as f32;
            let note = fit(note, 13.0, room);
            let place = [x as f32 + 19.0, (y + i64::from(TEXT) / 2) as f32];
            canvas.text(place, Align::Left, &note, 13.0, BLACK);
            x += 19 + text_width(&note, 13.0).ceil() as i64 + 20;
        }
        canvas.0
    }
}

/// Lays pictures out with their captions, up to four in a row.
pub fn contact_sheet(tiles: &[Tile]) -> RgbImage {
    let mut pictures: Vec<RgbImage> = tiles.iter().map(Tile::draw).collect();
    let cell = Size::new(PICTURE.height + (2 * TEXT + MARGIN) as usize, PICTURE.width);
    if tiles.is_empty() {
        let (width, height) = cell.dimensions();
        let mut canvas = Canvas::new(width, height);
        let middle = [width as f32 / 2.0, height as f32 / 2.0];
        canvas.text(middle, Align::Centre, "no errors", 16.0, BLACK);
        pictures.push(canvas.0);
    }
    let grid = Grid {
        columns: COLUMNS,
        cell,
        gap: MARGIN,
        background: WHITE,
    };
    grid.draw(&pictures)
}
