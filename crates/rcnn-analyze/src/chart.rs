//! The analysis as a picture: what each layer costs beside what happens without it.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Analysis, Layer};

/// Pixels: a row, the title, and the columns from the left: names, shares of time, changes of loss.
const ROW: i32 = 22;
const TOP: i32 = 64;
const NAMES: i32 = 300;
const COLUMN: i32 = 300;
const GAP: i32 = 70;

const TIME: RGBColor = RGBColor(0, 98, 178);
const WORSE: RGBColor = RGBColor(204, 72, 0);
const BETTER: RGBColor = RGBColor(0, 128, 96);

/// Draws a chart as SVG, with the layers in the order of the analysis.
pub fn draw_chart(analysis: &Analysis) -> String {
    let labelled = analysis.quality.is_some();
    let width = NAMES + COLUMN + GAP + if labelled { COLUMN + GAP } else { 0 };
    let height = TOP + ROW * analysis.layers.len() as i32 + 16;
    let mut svg = String::new();
    let backend = SVGBackend::with_string(&mut svg, (width as u32, height as u32));
    draw(&backend.into_drawing_area(), analysis).expect("text can be written to");
    svg
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw<'a>(area: &Area<'a>, analysis: &Analysis) -> Drawn<'a> {
    area.fill(&WHITE)?;
    let text = |text: String, at: (i32, i32), align: HPos, size: i32| {
        let style = ("sans-serif", size).into_font().color(&BLACK);
        let style = style.pos(Pos::new(align, VPos::Center));
        area.draw(&Text::new(text, at, style))
    };
    let bar = |left: i32, right: i32, y: i32, colour: RGBColor| {
        let corners = [(left, y - 7), (right.max(left + 1), y + 7)];
        area.draw(&Rectangle::new(corners, colour.filled()))
    };
    let losses = NAMES + COLUMN + GAP;
    let change = |layer: &Layer| analysis.changes(layer)[0];
    text("share of the time".into(), (NAMES, 40), HPos::Left, 15)?;
    let changes = || analysis.layers.iter().filter_map(change);
    if changes().next().is_some() {
        let title = "change of the loss without the layer";
        text(title.into(), (losses, 40), HPos::Left, 15)?;
    }
    let longest = analysis.layers.iter().map(|layer| analysis.share(layer));
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    // Zero lies where the largest fall and the largest rise both have room.
    let (fall, rise) = changes().fold((0.0, f64::MIN_POSITIVE), |(fall, rise), change| {
        (f64::min(fall, change), f64::max(rise, change))
    });
    let across = |change: f64| {
        let share = (change - fall) / (rise - fall);
        losses + (share * f64::from(COLUMN)) as i32
    };
    for (row, layer) in (0..).zip(&analysis.layers) {
        let y = TOP + ROW * row + ROW / 2;
        text(layer.name.clone(), (NAMES - 10, y), HPos::Right, 13)?;
        let share = analysis.share(layer);
        let end = NAMES + (share / longest * f64::from(COLUMN)) as i32;
        bar(NAMES, end, y, TIME)?;
        text(
            format!("{:.1} %", share * 100.0),
            (end + 6, y),
            HPos::Left,
            12,
        )?;
        if let Some(change) = change(layer) {
            let (zero, end) = (across(0.0), across(change));
            let colour = if change > 0.0 { WORSE } else { BETTER };
            bar(zero.min(end), zero.max(end), y, colour)?;
            let value = format!("{change:+.3}");
            text(value, (zero.max(end) + 6, y), HPos::Left, 12)?;
        }
    }
    area.present()
}
