//! An evaluation as a table for people.

use std::fmt;

use rcnn_types::{pad_to_columns, text_columns};

use crate::Evaluation;

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
        let s = &self.summary;
        let most = format!("AR{}", self.max_dets);
        for row in [
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
        ] {
            let cell = |(name, number)| format!("{name:<5} {:>6}", fraction(number));
            writeln!(out, "  {}", row.map(cell).join("    "))?;
        }

        // COCO's labels have gaps, which say nothing.
        let classes = self.per_class.iter();
        let classes = classes.filter(|class| class.objects + class.detections > 0);
        let widths = classes.clone().map(|class| text_columns(&class.name));
        let width = widths.max().unwrap_or(0).max(5);
        writeln!(
            out,
            "\n  {:width$}  objects  detections      AP    AP50      AR  best F1  at score",
            "class"
        )?;
        for class in classes {
            let best = class.best_f1.as_ref();
            writeln!(
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
        }
        Ok(())
    }
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
