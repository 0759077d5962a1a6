//! The analysis as a picture: what each layer costs beside what happens without it.

use image::{Rgb, RgbImage};
use rcnn_image::draw::{Align, BLACK, Canvas, fit};

use crate::{Analysis, Layer};

/// Pixels: a row, the title, and the columns from the left: names, shares of time, changes of loss.
const ROW: i64 = 22;
const TOP: i64 = 64;
const NAMES: i64 = 300;
const COLUMN: i64 = 300;
const GAP: i64 = 70;

const TIME: Rgb<u8> = Rgb([0, 98, 178]);
const WORSE: Rgb<u8> = Rgb([204, 72, 0]);
const BETTER: Rgb<u8> = Rgb([0, 128, 96]);

/// Draws a chart, with the layers in the order of the analysis.
pub fn draw_chart(analysis: &Analysis) -> RgbImage {
    let labelled = analysis.quality.is_some();
    let width = NAMES + COLUMN + GAP + if labelled { COLUMN + GAP } else { 0 };
    let height = TOP + ROW * analysis.layers.len() as i64 + 16;
    let mut canvas = Canvas::new(width as u32, height as u32);
    let losses = NAMES + COLUMN + GAP;
    let change = |layer: &Layer| analysis.changes(layer)[0];
    write(&mut canvas, NAMES, 40, "share of the time", 15.0);
    let changes = || analysis.layers.iter().filter_map(change);
    if changes().next().is_some() {
        let title = "change of the loss without the layer";
        write(&mut canvas, losses, 40, title, 15.0);
    }
    let longest = analysis.layers.iter().map(|layer| analysis.share(layer));
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    // Zero lies where the largest fall and the largest rise both have room.
    let (fall, rise) = changes().fold((0.0, f64::MIN_POSITIVE), |(fall, rise), change| {
        (f64::min(fall, change), f64::max(rise, change))
    });
    let across = |change: f64| {
        let share = (change - fall) / (rise - fall);
        losses + (share * COLUMN as f64) as i64
    };
    for (row, layer) in (0..).zip(&analysis.layers) {
        let y = TOP + ROW * row + ROW / 2;
        let name = fit(&layer.name, 13.0, (NAMES - 20) as f32);
        let end = [(NAMES - 10) as f32, y as f32];
        canvas.text(end, Align::Right, &name, 13.0, BLACK);
        let share = analysis.share(layer);
        let end = NAMES + (share / longest * COLUMN as f64) as i64;
        bar(&mut canvas, NAMES, end, y, TIME);
        let value = format!("{:.1} %", share * 100.0);
        write(&mut canvas, end + 6, y, &value, 12.0);
        if let Some(change) = change(layer) {
            let (zero, end) = (across(0.0), across(change));
            let colour = if change > 0.0 { WORSE } else { BETTER };
            bar(&mut canvas, zero.min(end), zero.max(end), y, colour);
            let value = format!("{change:+.3}");
            write(&mut canvas, zero.max(end) + 6, y, &value, 12.0);
        }
    }
    canvas.0
}

fn write(canvas: &mut Canvas, x: i64, y: i64, text: &str, size: f32) {
    canvas.text([x as f32, y as f32], Align::Left, text, size, BLACK);
}

/// A horizontal bar around the height `y`, at least a pixel long.
fn bar(canvas: &mut Canvas, left: i64, right: i64, y: i64, colour: Rgb<u8>) {
    canvas.fill(left, y - 7, [(right - left).max(1), 14], colour);
}
