//! An evaluation as a table for people.

use std::fmt;

use rcnn_types::{pad_to_columns, text_columns};

use crate::{Evaluation, Summary};

impl fmt::Display for Evaluation {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let (images, objects) = (self.images, self.objects);
        writeln!(
            out,
            "{}, {}, {}\n",
            count(images, "image"),
            count(objects, "object"),
            count(self.detections, "detection")
        )?;
        let boxes = rows(&self.summary, self.max_dets);
        match (&self.segm, &self.keypoints) {
            (None, None) => {}
            _ => writeln!(out, "  boxes (bbox)")?,
        }
        write_rows(out, &boxes)?;
        if let Some(segm) = &self.segm {
            writeln!(out, "\n  masks (segm)")?;
            write_rows(out, &rows(&segm.summary, self.max_dets))?;
        }
        if let Some(keypoints) = &self.keypoints {
            writeln!(out, "\n  keypoints")?;
            let s = &keypoints.summary;
            let rows = [
                [("AP", s.ap), ("AP50", s.ap50), ("AP75", s.ap75)],
                [("", None), ("APm", s.ap_medium), ("APl", s.ap_large)],
                [("AR", s.ar), ("AR50", s.ar50), ("AR75", s.ar75)],
                [("", None), ("ARm", s.ar_medium), ("ARl", s.ar_large)],
            ];
            write_rows(out, &rows.map(|row| row.map(|(name, v)| (name.into(), v))))?;
        }

        // COCO's labels have gaps, which say nothing.
        let classes = self.per_class.iter();
        let classes = classes.enumerate();
        let classes = classes.filter(|(_, class)| class.objects + class.detections > 0);
        let widths = classes.clone().map(|(_, class)| text_columns(&class.name));
        let width = widths.max().unwrap_or(0).max(5);
        let segm = self.segm.as_ref().map(|segm| &segm.per_class);
        let keypoints = self
            .keypoints
            .as_ref()
            .map(|keypoints| &keypoints.per_class);
        let others = [("segm AP", segm), ("keypoint AP", keypoints)];
        let others = others
            .into_iter()
            .filter_map(|(name, all)| Some((name, all?)));
        write!(
            out,
            "\n  {:width$}  objects  detections      AP    AP50      AR  best F1  at score",
            "class"
        )?;
        for (name, _) in others.clone() {
            write!(out, "  {name}")?;
        }
        writeln!(out)?;
        for (index, class) in classes {
            let best = class.best_f1.as_ref();
            write!(
                out,
                "  {}  {:>7}  {:>10}  {:>6}  {:>6}  {:>6}  {:>7}  {:>8}",
                pad_to_columns(&class.name, width),
                class.objects,
                class.detections,
                fraction(class.ap),
                fraction(class.ap50),
                fraction(class.ar),
                fraction(best.map(|best| best.f1)),
                fraction(best.map(|best| best.score.into())),
            )?;
            for (name, numbers) in others.clone() {
                write!(out, "  {:>1$}", fraction(numbers[index].ap), name.len())?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Names and numbers, three a row.
type Rows = [[(String, Option<f64>); 3]; 4];

/// COCO's twelve numbers.
fn rows(s: &Summary, max_dets: usize) -> Rows {
    let most = format!("AR{max_dets}");
    let rows = [
        [("AP", s.ap), ("AP50", s.ap50), ("AP75", s.ap75)],
        [
            ("APs", s.ap_small),
            ("APm", s.ap_medium),
            ("APl", s.ap_large),
        ],
        [("AR1", s.ar1), ("AR10", s.ar10), (&most, s.ar100)],
        [
            ("ARs", s.ar_small),
            ("ARm", s.ar_medium),
            ("ARl", s.ar_large),
        ],
    ];
    rows.map(|row| row.map(|(name, number)| (name.into(), number)))
}

fn write_rows(out: &mut fmt::Formatter, rows: &Rows) -> fmt::Result {
    for row in rows {
        let cells = row.each_ref().map(|(name, number)| match name.as_str() {
            "" => " ".repeat(12),
            _ => format!("{name:<5} {:>6}", fraction(*number)),
        });
        writeln!(out, "  {}", cells.join("    "))?;
    }
    Ok(())
}

/// A number and what it counts.
pub(crate) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn fraction(number: Option<f64>) -> String {
    number.map_or("-".into(), |number| format!("{number:.4}"))
}
