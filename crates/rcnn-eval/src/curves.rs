//! Precision-recall curves, and the score thresholds with the best F1.

use image::{Rgb, RgbImage};
use rcnn_image::draw::{Align, BLACK, Canvas, GREY, PALE, WHITE, fit, legible};
use serde::Serialize;

use crate::engine::MatchResult;
use crate::input::Sample;
use crate::table::count;
use crate::{ClassEvaluation, Evaluation};

/// The precision and recall of one class at [`MATCH_IOU`](crate::MATCH_IOU).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// The number of objects.
    pub objects: usize,
    /// A point for each score that occurs, from the highest down.
    pub points: Vec<CurvePoint>,
}

/// Precision and recall of the detections from some score on, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// The score.
    pub score: f32,
    /// The part of the detections that are right.
    pub precision: f64,
    /// The part of the objects that are found.
    pub recall: f64,
}

/// The threshold with the best F1, the harmonic mean of precision and recall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BestF1 {
    /// The lowest score that counts; the highest of several such thresholds.
    pub score: f32,
    /// The F1 there.
    pub f1: f64,
    /// The precision there.
    pub precision: f64,
    /// The recall there.
    pub recall: f64,
}

impl Curve {
    /// The curve of each class from label 1 on; `classes` includes the background.
    pub(crate) fn all(
        samples: &[Sample],
        matches: &[Vec<MatchResult>],
        classes: usize,
    ) -> Vec<Self> {
        let mut objects = vec![0; classes];
        let mut found = vec![Vec::new(); classes];
        for (sample, matches) in samples.iter().zip(matches) {
            let truth = sample.truth();
            truth
                .objects()
                .for_each(|index| objects[truth.labels[index]] += 1);
            for (object, result) in sample.found.iter().zip(matches) {
                match result {
                    MatchResult::TruePositive(_) => found[object.label].push((object.score, true)),
                    MatchResult::FalsePositive => found[object.label].push((object.score, false)),
                    MatchResult::Ignored => {}
                }
            }
        }
        let classes = objects.into_iter().zip(found).skip(1);
        classes
            .map(|(objects, found)| Self::new(objects, found))
            .collect()
    }

    fn new(objects: usize, mut found: Vec<(f32, bool)>) -> Self {
        let mut points = Vec::new();
        if objects == 0 {
            return Self { objects, points };
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut right = 0;
        for (rank, &(score, is_right)) in found.iter().enumerate() {
            right += usize::from(is_right);
            // A threshold cannot divide equal scores.
            if found.get(rank + 1).is_none_or(|next| next.0 < score) {
                points.push(CurvePoint {
                    score,
                    precision: right as f64 / (rank + 1) as f64,
                    recall: right as f64 / objects as f64,
                });
            }
        }
        Self { objects, points }
    }

    /// The threshold with the best F1; `None` if nothing was found.
    pub fn best_f1(&self) -> Option<BestF1> {
        let found = self.points.iter().filter(|point| point.recall > 0.0);
        let all = found.map(|point| BestF1 {
            score: point.score,
            f1: 2.0 * point.precision * point.recall / (point.precision + point.recall),
            precision: point.precision,
            recall: point.recall,
        });
        all.reduce(|best, next| if next.f1 > best.f1 { next } else { best })
    }
}

/// The most classes drawn.
const MOST: usize = 100;
/// The sides of a plot, and the room left, above, right and below of it, in pixels.
const SIDE: i64 = 260;
const ROOM: [i64; 4] = [62, 58, 26, 54];
const LINE: Rgb<u8> = Rgb([0, 98, 178]);
const AREA: Rgb<u8> = Rgb([221, 235, 247]);
const MARK: Rgb<u8> = Rgb([204, 72, 0]);

/// Draws the precision-recall curve of each class that has objects, a plot each; the shaded area is
/// AP50 and the mark the best F1. Of more than 100 classes, those with the most objects.
pub fn draw_curves(evaluation: &Evaluation) -> RgbImage {
    let classes = evaluation.per_class.iter().zip(&evaluation.curves);
    let mut plots: Vec<_> = classes.filter(|(class, _)| class.objects > 0).collect();
    if plots.len() > MOST {
        plots.sort_by_key(|(class, _)| std::cmp::Reverse(class.objects));
        plots.truncate(MOST);
    }
    let columns = (plots.len() as f64).sqrt().ceil().max(1.0) as usize;
    let rows = plots.len().div_ceil(columns).max(1);
    let [width, height] = [ROOM[0] + SIDE + ROOM[2], ROOM[1] + SIDE + ROOM[3]];
    let mut canvas = Canvas::new(columns as u32 * width as u32, rows as u32 * height as u32);
    if plots.is_empty() {
        let middle = [width as f32 / 2.0, height as f32 / 2.0];
        canvas.text(middle, Align::Centre, "no objects", 16.0, GREY);
    }
    for (index, (class, curve)) in plots.into_iter().enumerate() {
        let corner = [
            (index % columns) as i64 * width + ROOM[0],
            (index / columns) as i64 * height + ROOM[1],
        ];
        plot(&mut canvas, corner, class, curve);
    }
    canvas.0
}

/// Draws one curve into the square that begins at `corner`.
fn plot(canvas: &mut Canvas, corner: [i64; 2], class: &ClassEvaluation, curve: &Curve) {
    let [left, top] = corner;
    let [x, y] = corner.map(|v| v as f32);
    let side = SIDE as f32;
    let at = |recall: f64, precision: f64| {
        [
            x + recall as f32 * side,
            y + (1.0 - precision as f32) * side,
        ]
    };

    // The best precision at each recall and beyond, which average precision is the area under.
    let mut below = 0;
    let mut best = 0.0;
    let mut steps = Vec::with_capacity(curve.points.len());
    for point in curve.points.iter().rev() {
        best = point.precision.max(best);
        steps.push((point.recall, best));
    }
    for (recall, best) in steps.into_iter().rev() {
        let [right, high] = at(recall, best).map(|v| v.round() as i64);
        canvas.fill(
            left + below,
            high,
            [right - left - below, top + SIDE - high],
            AREA,
        );
        below = right - left;
    }

    for tick in 0..=5 {
        let value = f64::from(tick) / 5.0;
        let text = format!("{value:.1}");
        let [across, down] = at(value, value);
        canvas.fill(left, down as i64, [SIDE, 1], PALE);
        canvas.fill(across as i64, top, [1, SIDE], PALE);
        canvas.text([x - 7.0, down], Align::Right, &text, 12.0, GREY);
        canvas.text([across, y + side + 13.0], Align::Centre, &text, 12.0, GREY);
    }
    canvas.frame([left, top, left + SIDE + 1, top + SIDE + 1], 1, GREY);
    let middle = side / 2.0;
    canvas.text(
        [x + middle, y + side + 33.0],
        Align::Centre,
        "recall",
        13.0,
        GREY,
    );
    canvas.text_up(
        [x - 42.0, y + middle],
        Align::Centre,
        "precision",
        13.0,
        GREY,
    );

    let first = curve.points.first().map(|point| at(0.0, point.precision));
    let points = curve
        .points
        .iter()
        .map(|point| at(point.recall, point.precision));
    let points: Vec<_> = first.into_iter().chain(points).collect();
    for ends in points.windows(2) {
        canvas.line(ends[0], ends[1], 2.2, LINE);
    }

    let title = fit(&legible(&class.name, class.label), 17.0, side);
    canvas.text([x, y - 40.0], Align::Left, &title, 17.0, BLACK);
    let ap50 = class.ap50.unwrap_or(0.0);
    let note = format!("AP50 {ap50:.3} · {}", count(class.objects, "object"));
    canvas.text([x, y - 17.0], Align::Left, &note, 13.0, GREY);
    let Some(best) = class.best_f1 else {
        let place = [x + middle, y + middle];
        canvas.text(place, Align::Centre, "nothing found", 13.0, GREY);
        return;
    };
    let mark = at(best.recall, best.precision);
    canvas.line(mark, mark, 11.0, WHITE);
    canvas.line(mark, mark, 8.0, MARK);
    // Good curves leave room below, others above.
    let below = if best.precision > 0.5 || best.recall > 0.5 {
        side - 32.0
    } else {
        17.0
    };
    let lines = [
        format!("best F1 {:.3}", best.f1),
        format!("at score {:.3}", best.score),
    ];
    for (line, text) in lines.iter().enumerate() {
        let place = [x + 10.0, y + below + 17.0 * line as f32];
        canvas.text(place, Align::Left, text, 12.5, MARK);
    }
}
