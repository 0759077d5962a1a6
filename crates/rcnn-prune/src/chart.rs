//! What became of each layer, as a picture.

use image::{Rgb, RgbImage};
use rcnn_image::draw::{Align, BLACK, Canvas, GREY, PALE, fit};

use crate::PruneReport;

/// Pixels: a row, the title, and the columns from the left: names, channels, multiply-accumulates.
const ROW: i64 = 20;
const TOP: i64 = 64;
const NAMES: i64 = 300;
const COLUMN: i64 = 300;
const GAP: i64 = 110;

const LEFT: Rgb<u8> = Rgb([0, 98, 178]);

/// Draws each layer's channels and multiply-accumulates: all of them pale, what is left in colour.
pub fn draw_chart(report: &PruneReport) -> RgbImage {
    let width = NAMES + 2 * (COLUMN + GAP);
    let height = TOP + ROW * report.layers.len() as i64 + 16;
    let mut canvas = Canvas::new(width as u32, height as u32);
    let columns = [NAMES, NAMES + COLUMN + GAP];
    for (x, title) in columns
        .into_iter()
        .zip(["channels", "multiply-accumulates (M)"])
    {
        write(&mut canvas, x, 40, title, 15.0, BLACK);
    }
    let channels = report.layers.iter().map(|layer| layer.channels[0]);
    let channels = channels.max().unwrap_or(1).max(1) as f64;
    let macs = report.layers.iter().map(|layer| layer.macs[0]);
    let macs = macs.max().unwrap_or(1).max(1) as f64;
    for (row, layer) in (0..).zip(&report.layers) {
        let y = TOP + ROW * row + ROW / 2;
        let name = fit(&layer.layer, 12.0, (NAMES - 20) as f32);
        let end = [(NAMES - 10) as f32, y as f32];
        canvas.text(end, Align::Right, &name, 12.0, BLACK);
        let [before, after] = layer.channels;
        let text = match before == after {
            true => before.to_string(),
            false => format!("{before} to {after}"),
        };
        let shares = layer.channels.map(|n| n as f64 / channels);
        bars(&mut canvas, columns[0], y, shares, &text);
        let shares = layer.macs.map(|n| n as f64 / macs);
        let [before, after] = layer.macs.map(|n| format!("{:.0}", n as f64 / 1e6));
        let text = match before == after {
            true => before,
            false => format!("{before} to {after}"),
        };
        bars(&mut canvas, columns[1], y, shares, &text);
    }
    canvas.0
}

fn write(canvas: &mut Canvas, x: i64, y: i64, text: &str, size: f32, colour: Rgb<u8>) {
    canvas.text([x as f32, y as f32], Align::Left, text, size, colour);
}

/// Bars around the height `y`, one over the other, and a text after the longer one.
fn bars(canvas: &mut Canvas, left: i64, y: i64, shares: [f64; 2], text: &str) {
    let [before, after] = shares.map(|share| ((share * COLUMN as f64) as i64).max(1));
    canvas.fill(left, y - 6, [before, 12], PALE);
    canvas.fill(left, y - 6, [after, 12], LEFT);
    write(canvas, left + before.max(after) + 6, y, text, 11.0, GREY);
}
