//! Line plots, such as the losses of a training over its epochs.

use image::{Rgb, RgbImage};
use rcnn_image::draw::{Align, BLACK, Canvas, GREY, PALE, fit, text_width};

/// A line plot: several lines over a common axis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plot {
    /// Title.
    pub title: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Name and points `[x, y]` of each line, by rising x.
    pub series: Vec<(String, Vec<[f64; 2]>)>,
}

/// The sides of a plot, and the room left, above, right and below of it, in pixels.
const SIDES: [i64; 2] = [340, 220];
const ROOM: [i64; 4] = [62, 58, 26, 54];
const COLUMNS: usize = 3;
const COLOURS: [Rgb<u8>; 6] = [
    Rgb([0, 98, 178]),
    Rgb([204, 72, 0]),
    Rgb([0, 128, 96]),
    Rgb([128, 64, 160]),
    Rgb([120, 90, 20]),
    Rgb([190, 30, 100]),
];
/// Size of the legend's letters and height of its lines, in pixels.
const LEGEND: [f32; 2] = [13.0, 18.0];

/// Draws plots in rows of three. The vertical axes begin at zero.
pub fn draw_plots(plots: &[Plot]) -> RgbImage {
    let legends: Vec<_> = plots.iter().map(legend).collect();
    let lines = legends.iter().flatten().map(|label| label.line).max();
    let above = ROOM[1] + lines.unwrap_or(0) as i64 * LEGEND[1] as i64;
    let cell = [ROOM[0] + SIDES[0] + ROOM[2], above + SIDES[1] + ROOM[3]];
    let columns = plots.len().clamp(1, COLUMNS);
    let rows = plots.len().div_ceil(COLUMNS).max(1);
    let mut canvas = Canvas::new(
        (columns as i64 * cell[0]) as u32,
        (rows as i64 * cell[1]) as u32,
    );
    for (index, (plot, legend)) in plots.iter().zip(&legends).enumerate() {
        let left = (index % COLUMNS) as i64 * cell[0] + ROOM[0];
        let top = (index / COLUMNS) as i64 * cell[1] + above;
        draw(&mut canvas, [left, top], plot, legend);
    }
    canvas.0
}

/// An entry of a legend: its text, pixels from the left edge, and line from the top.
struct Label {
    text: String,
    left: f32,
    line: usize,
}

/// Names and last values, in as many lines as are needed.
fn legend(plot: &Plot) -> Vec<Label> {
    let (mut left, mut line) = (0.0, 0);
    let labels = plot.series.iter().map(|(name, points)| {
        let value = points
            .last()
            .map_or(String::new(), |p| format!(" {:.4}", p[1]));
        let text = format!("{name}{value}");
        let width = text_width(&text, LEGEND[0]);
        if left > 0.0 && left + width > SIDES[0] as f32 {
            (left, line) = (0.0, line + 1);
        }
        let label = Label { text, left, line };
        left += width + 14.0;
        label
    });
    labels.collect()
}

fn draw(canvas: &mut Canvas, [left, top]: [i64; 2], plot: &Plot, legend: &[Label]) {
    let [x, y] = [left as f32, top as f32];
    let [width, height] = SIDES.map(|side| side as f32);
    let points = || plot.series.iter().flat_map(|(_, points)| points);
    let points = || points().filter(|point| point.iter().all(|v| v.is_finite()));
    let first = points().map(|p| p[0]).fold(f64::INFINITY, f64::min);
    let last = points().map(|p| p[0]).fold(f64::NEG_INFINITY, f64::max);
    let step = nice(points().map(|p| p[1]).fold(0.0, f64::max) / 5.0);
    let at = |point: &[f64; 2]| {
        let across = (point[0] - first) / (last - first).max(1e-9);
        let up = point[1] / (5.0 * step);
        [x + across as f32 * width, y + (1.0 - up as f32) * height]
    };
    for tick in 0..=5 {
        let value = f64::from(tick) * step;
        let down = y + height * (1.0 - tick as f32 / 5.0);
        canvas.fill(left, down as i64, [SIDES[0], 1], PALE);
        let digits = (-step.log10()).ceil().max(0.0) as usize;
        let text = format!("{value:.digits$}");
        canvas.text([x - 7.0, down], Align::Right, &text, 12.0, GREY);
    }
    if last > f64::NEG_INFINITY {
        for (value, align) in [(first, Align::Left), (last, Align::Right)] {
            let across = at(&[value, 0.0])[0];
            let text = format!("{value}");
            canvas.text([across, y + height + 13.0], align, &text, 12.0, GREY);
        }
    }
    canvas.frame(
        [left, top, left + SIDES[0] + 1, top + SIDES[1] + 1],
        1,
        GREY,
    );
    let middle = [x + width / 2.0, y + height + 33.0];
    canvas.text(middle, Align::Centre, &plot.x, 13.0, GREY);
    let title = fit(&plot.title, 17.0, width);
    let lines = legend.last().map_or(0, |label| label.line);
    let first_line = y - 17.0 - lines as f32 * LEGEND[1];
    let title_at = [x, first_line - 23.0];
    canvas.text(title_at, Align::Left, &title, 17.0, BLACK);

    for (((_, points), label), colour) in plot
        .series
        .iter()
        .zip(legend)
        .zip(COLOURS.into_iter().cycle())
    {
        for ends in points.windows(2) {
            if ends.iter().flatten().all(|v| v.is_finite()) {
                canvas.line(at(&ends[0]), at(&ends[1]), 2.2, colour);
            }
        }
        if let [only] = &points[..] {
            canvas.line(at(only), at(only), 6.0, colour);
        }
        let place = [x + label.left, first_line + label.line as f32 * LEGEND[1]];
        canvas.text(place, Align::Left, &label.text, LEGEND[0], colour);
    }
}

/// The next of 1, 2, 2.5 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    if !(value > 0.0 && value.is_finite()) {
        return 0.2;
    }
    let power = 10f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .find(|f| f * power >= value);
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_where_their_values_are() {
        let plot = Plot {
            title: "loss".into(),
            x: "epoch".into(),
            series: vec![("train".into(), vec![[1.0, 5.0], [2.0, 0.0]])],
        };
        let picture = draw_plots(&[plot]);
        let colour =
            |x: i64, y: i64| *picture.get_pixel((ROOM[0] + x) as u32, (ROOM[1] + y) as u32);
        assert_eq!(colour(SIDES[0] / 2, SIDES[1] / 2), COLOURS[0]);
        assert_ne!(colour(SIDES[0] / 2, SIDES[1] / 4), COLOURS[0]);
        // Nothing to draw, and nothing that can be drawn, is a picture too.
        assert!(draw_plots(&[]).width() > 0);
        let plot = Plot {
            series: vec![("nan".into(), vec![[1.0, f64::NAN]])],
            ..Plot::default()
        };
        assert!(draw_plots(&[plot]).width() > 0);
    }

    #[test]
    fn a_long_legend_has_lines_enough_to_stay_within_its_plot() {
        let names = [
            "AP",
            "AP50",
            "segm_AP",
            "segm_AP50",
            "keypoints_AP",
            "keypoints_AP50",
        ];
        let series = names.map(|name| (name.to_string(), vec![[1.0, 0.5], [2.0, 0.6]]));
        let plot = Plot {
            series: series.into(),
            ..Plot::default()
        };
        let labels = legend(&plot);
        for label in &labels {
            let right = label.left + text_width(&label.text, LEGEND[0]);
            assert!(right <= SIDES[0] as f32, "{} ends at {right}", label.text);
        }
        assert!(labels[5].line > 0);
        let short = Plot::default();
        let taller = draw_plots(&[plot]).height() - draw_plots(&[short]).height();
        assert_eq!(taller as f32, labels[5].line as f32 * LEGEND[1]);
    }

    #[test]
    fn steps_are_round() {
        let steps: Vec<f64> = [0.011, 0.3, 2.2, 7.0].map(nice).into();
        assert_eq!(steps, [0.02, 0.5, 2.5, 10.0]);
        assert_eq!(nice(0.0), 0.2);
    }
}
