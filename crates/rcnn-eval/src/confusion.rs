//! The confusion matrix: which class is taken for which.

use image::{Rgb, RgbImage};
use rcnn_image::draw::{Align, BLACK, Canvas, GREY, PALE, WHITE, fit, legible, text_width};
use serde::Serialize;

use crate::MATCH_IOU;
use crate::engine::iou;
use crate::worst::{ImageErrors, Mark};

/// Confusion matrix: how often objects of each class are taken for each class.
///
/// A detection counts from its class's threshold on. It first finds objects of its own class, as
/// in AP50; what is left over then pairs across classes, the best scores first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Confusion {
    /// The IoU from which on a detection belongs to an object.
    pub iou: f64,
    /// The score from which on detections count, of each class from label 1 on: that of the best
    /// F1, or 0.5 without one.
    pub score_thresholds: Vec<f32>,
    /// The names by label; the first is the background.
    pub classes: Vec<String>,
    /// The numbers, as `counts[label of the object][label of the detection]`. In the background's
    /// row are detections without an object, in its column objects without a detection.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts the errors in images.
    pub(crate) fn count(
        errors: &[ImageErrors],
        class_names: &[String],
        score_thresholds: Vec<f32>,
    ) -> Self {
        let mut classes = class_names.to_vec();
        classes.resize(classes.len().max(1), String::new());
        classes[0] = "background".into();
        let mut counts = vec![vec![0; classes.len()]; classes.len()];
        for image in errors {
            for mark in &image.found {
                counts[mark.label][mark.label] += 1;
            }
            let mut missed: Vec<&Mark> = image.missed.iter().collect();
            for wrong in &image.false_positives {
                let overlaps = missed.iter().enumerate();
                let overlaps = overlaps.map(|(index, mark)| (index, iou(&wrong.bbox, &mark.bbox)));
                let best = overlaps.max_by(|a, b| a.1.total_cmp(&b.1));
                let taken = best.filter(|best| best.1 >= MATCH_IOU);
                let object = taken.map_or(0, |(index, _)| missed.swap_remove(index).label);
                counts[object][wrong.label] += 1;
            }
            for mark in missed {
                counts[mark.label][0] += 1;
            }
        }
        Self {
            iou: MATCH_IOU,
            score_thresholds,
            classes,
            counts,
        }
    }

    /// The labels with objects or detections, then the background; at most `most` classes, those
    /// with the highest counts.
    fn shown(&self, most: usize) -> Vec<usize> {
        let total = |label: usize| {
            let column: u64 = self.counts.iter().map(|row| row[label]).sum();
            self.counts[label].iter().sum::<u64>() + column
        };
        let mut labels: Vec<usize> = (1..self.classes.len()).collect();
        labels.retain(|&label| total(label) > 0);
        if labels.len() > most {
            labels.sort_by_key(|&label| std::cmp::Reverse(total(label)));
            labels.truncate(most);
            labels.sort();
        }
        labels.push(0);
        labels
    }
}

/// The darkest colour, that of all objects of a row.
const DARK: [f32; 3] = [8.0, 64.0, 129.0];

/// Draws the matrix: true classes in rows, detected classes in columns, coloured by the share of the row.
/// Classes that do not occur are left out; of more than 100, the rarest.
pub fn draw_confusion(confusion: &Confusion) -> RgbImage {
    let labels = confusion.shown(100);
    let cell = (1000 / labels.len() as i64).clamp(30, 76);
    let size = (cell as f32 * 0.3).clamp(12.0, 15.0);
    let names: Vec<String> = labels
        .iter()
        .map(|&label| fit(&legible(&confusion.classes[label], label), size, 190.0))
        .collect();
    let widths = names.iter().map(|name| text_width(name, size));
    let room = widths.fold(40.0, f32::max).ceil() as i64;
    let [left, top] = [room + 52, room + 52];
    let side = cell * labels.len() as i64;
    // A legible matrix of one class is wider than its cells.
    let (width, height) = ((left + side + 24).max(left + 330), top + side + 48);
    let mut canvas = Canvas::new(width as u32, height as u32);

    let [x, y] = [left as f32, top as f32];
    let middle = side as f32 / 2.0;
    canvas.text([x + middle, 20.0], Align::Centre, "detected as", 14.0, GREY);
    canvas.text_up([20.0, y + middle], Align::Centre, "object", 14.0, GREY);
    let note = format!(
        "IoU from {} on, scores from the best F1 of each class on",
        confusion.iou
    );
    canvas.text(
        [16.0, (top + side) as f32 + 26.0],
        Align::Left,
        &note,
        12.0,
        GREY,
    );
    for (index, name) in names.iter().enumerate() {
        let centre = (index as f32 + 0.5) * cell as f32;
        let colour = if labels[index] == 0 { GREY } else { BLACK };
        canvas.text([x - 9.0, y + centre], Align::Right, name, size, colour);
        canvas.text_up([x + centre, y - 9.0], Align::Left, name, size, colour);
    }
    for (row, &object) in labels.iter().enumerate() {
        let counts = &confusion.counts[object];
        let total = counts.iter().sum::<u64>().max(1);
        for (column, &detected) in labels.iter().enumerate() {
            let [cx, cy] = [left + column as i64 * cell, top + row as i64 * cell];
            let part = counts[detected] as f32 / total as f32;
            let shade = |dark: f32| (255.0 + (dark - 255.0) * part.powf(0.7)).round() as u8;
            let fill = if (object, detected) == (0, 0) {
                PALE
            } else {
                Rgb(DARK.map(shade))
            };
            canvas.fill(cx, cy, [cell, cell], fill);
            canvas.frame([cx, cy, cx + cell + 1, cy + cell + 1], 1, PALE);
            if counts[detected] > 0 {
                let text = counts[detected].to_string();
                let fitting = size * (cell as f32 - 4.0) / text_width(&text, size);
                let centre = [cx, cy].map(|v| (v + cell / 2) as f32);
                let colour = if part > 0.6 { WHITE } else { BLACK };
                canvas.text(centre, Align::Centre, &text, size.min(fitting), colour);
            }
        }
    }
    // The background is no class.
    let edge = side - cell;
    canvas.fill(left + edge - 1, top, [3, side], GREY);
    canvas.fill(left, top + edge - 1, [side, 3], GREY);
    canvas.0
}
