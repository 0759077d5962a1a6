//! The result of an analysis, and its table.

use std::fmt;

use indexmap::IndexMap;
use rcnn_core::cost::{Cost, Costs};
use serde::Serialize;

/// Measurements of every layer of a model.
///
/// First come the layers that were left out in turn: what costs most time and is missed least before
/// what costs least and is missed most (by the sum of both places). The others follow by time.
/// `Display` writes a table for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Pictures that were measured on.
    pub pictures: usize,
    /// Mean time of a detection, in seconds.
    pub seconds: f64,
    /// Parameters and buffers.
    pub parameters: usize,
    /// Multiply-accumulates of a detection, the mean over the pictures.
    pub macs: u64,
    /// Accuracy of the model on the pictures, if they have labels.
    pub quality: Option<Quality>,
    /// Each layer. Residual blocks are one, and so are the steps between layers.
    pub layers: Vec<Layer>,
}

/// Accuracy of a model on the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// Sum of the losses, the mean over the pictures; `None` where it cannot be compared.
    pub loss: Option<f64>,
    /// COCO's average precision, as a fraction; `None` without objects.
    pub ap: Option<f64>,
}

/// Measurements of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    /// torchvision's name.
    pub name: String,
    /// Parameters and buffers.
    pub parameters: usize,
    /// Multiply-accumulates, the mean over the pictures.
    pub macs: u64,
    /// Mean time in a detection, in seconds.
    pub seconds: f64,
    /// Statistics of its output.
    pub output: Option<Activation>,
    /// Norm of the gradient of its parameters: the root of the mean square over the pictures.
    pub gradient_norm: Option<f64>,
    /// Accuracy of the model without the layer, where it can be bypassed.
    pub without: Option<Quality>,
    /// The option of `rcnn surgery` that removes it.
    pub removed_by: Option<String>,
}

/// Statistics of a layer's output over all pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Activation {
    /// Mean.
    pub mean: f64,
    /// Share of zeros, 0 to 1.
    pub zeros: f64,
}

impl Analysis {
    /// Layers with their times and costs, of one picture each.
    pub(crate) fn new(seconds: IndexMap<String, f64>, costs: &[Costs]) -> Self {
        let count = costs.len();
        let layers = seconds.into_iter().map(|(name, seconds)| Layer {
            name,
            parameters: 0,
            macs: 0,
            seconds: seconds / count as f64,
            output: None,
            gradient_norm: None,
            without: None,
            removed_by: None,
        });
        let mut analysis = Self {
            pictures: count,
            seconds: 0.0,
            parameters: 0,
            macs: 0,
            quality: None,
            layers: layers.collect(),
        };
        let mut sums: IndexMap<String, Cost> = IndexMap::new();
        for (name, cost) in costs.iter().flat_map(Costs::layers) {
            *sums.entry(name.to_string()).or_default() += cost;
        }
        analysis.put(sums, |layer, sum| {
            layer.parameters = sum.parameters / count;
            layer.macs = sum.macs / count as u64;
        });
        let layers = analysis.layers.iter();
        analysis.seconds = layers.clone().map(|layer| layer.seconds).sum();
        analysis.macs = layers.clone().map(|layer| layer.macs).sum();
        analysis.parameters = layers.map(|layer| layer.parameters).sum();
        analysis
    }

    /// Puts values into the layers of their names.
    pub(crate) fn put<T>(&mut self, values: IndexMap<String, T>, put: impl Fn(&mut Layer, T)) {
        for (name, value) in values {
            if let Some(layer) = self.layers.iter_mut().find(|layer| layer.name == name) {
                put(layer, value);
            }
        }
    }

    /// Change of the loss without the layer, or of average precision where the loss cannot tell.
    fn harm(&self, layer: &Layer) -> Option<f64> {
        let [loss, ap] = self.changes(layer);
        loss.or(ap.map(|change| -change))
    }

    pub(crate) fn sort(&mut self) {
        let place = |mut order: Vec<(f64, usize)>| {
            order.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut places = vec![0; self.layers.len()];
            for (place, (_, index)) in order.into_iter().enumerate() {
                places[index] = place;
            }
            places
        };
        let measured = || {
            let layers = self.layers.iter().enumerate();
            layers.filter_map(|(i, layer)| Some((i, layer, self.harm(layer)?)))
        };
        let by_time = place(
            measured()
                .map(|(i, layer, _)| (-layer.seconds, i))
                .collect(),
        );
        let by_harm = place(measured().map(|(i, _, harm)| (harm, i)).collect());
        let key = |i: usize| match self.harm(&self.layers[i]) {
            Some(_) => (by_time[i] + by_harm[i]) as f64,
            None => f64::INFINITY,
        };
        let mut order: Vec<usize> = (0..self.layers.len()).collect();
        order.sort_by(|&a, &b| {
            let time = |i: usize| -self.layers[i].seconds;
            (key(a).total_cmp(&key(b))).then(time(a).total_cmp(&time(b)))
        });
        self.layers = order.iter().map(|&i| self.layers[i].clone()).collect();
    }

    /// Share of the time of a detection that a layer takes, 0 to 1.
    pub fn share(&self, layer: &Layer) -> f64 {
        layer.seconds / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Changes of loss and average precision without a layer, where both were measured.
    pub fn changes(&self, layer: &Layer) -> [Option<f64>; 2] {
        let pair = |field: fn(&Quality) -> Option<f64>| {
            Some(field(layer.without.as_ref()?)? - field(self.quality.as_ref()?)?)
        };
        [pair(|quality| quality.loss), pair(|quality| quality.ap)]
    }
}

impl fmt::Display for Analysis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labelled = self.quality.is_some();
        let names = self.layers.iter().map(|layer| layer.name.len());
        let width = names.max().unwrap_or(0).max(5);
        write!(
            f,
            "{:width$} {:>10} {:>9} {:>9} {:>6} {:>9} {:>6}",
            "layer", "parameters", "MACs (M)", "time (ms)", "share", "mean", "zeros"
        )?;
        match labelled {
            true => writeln!(
                f,
                " {:>9} {:>8} {:>7}  removed by",
                "gradient", "loss", "AP"
            )?,
            false => writeln!(f)?,
        }
        for layer in &self.layers {
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            let count = |n: u64, text: String| if n == 0 { String::new() } else { text };
            let output = layer.output.map_or(Default::default(), |output| {
                (format!("{:.4}", output.mean), percent(output.zeros))
            });
            let mut line = format!(
                "{:width$} {:>10} {:>9} {:>9.2} {:>6} {:>9} {:>6}",
                layer.name,
                count(layer.parameters as u64, layer.parameters.to_string()),
                count(layer.macs, format!("{:.1}", layer.macs as f64 / 1e6)),
                layer.seconds * 1e3,
                percent(self.share(layer)),
                output.0,
                output.1,
            );
            if labelled {
                let signed = |change: Option<f64>, digits: usize| {
                    change.map_or(String::new(), |change| format!("{change:+.digits$}"))
                };
                let [loss, ap] = self.changes(layer);
                let gradient = layer.gradient_norm.map(|norm| format!("{norm:.4}"));
                line += &format!(
                    " {:>9} {:>8} {:>7}  {}",
                    gradient.unwrap_or_default(),
                    signed(loss, 4),
                    signed(ap, 3),
                    layer.removed_by.as_deref().unwrap_or_default()
                );
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        let (pictures, seconds) = (self.pictures, self.seconds * 1e3);
        let pictures = match pictures {
            1 => "1 picture".to_string(),
            n => format!("{n} pictures"),
        };
        writeln!(
            f,
            "{pictures}: {seconds:.0} ms and {:.0} M multiply-accumulates each, {} parameters",
            self.macs as f64 / 1e6,
            self.parameters
        )?;
        if let Some(Quality { loss, ap }) = self.quality {
            let number = |value: Option<f64>| value.map_or("none".into(), |v| format!("{v:.4}"));
            writeln!(
                f,
                "loss {}, AP {}; the columns `loss` and `AP` show the change without each layer",
                number(loss),
                number(ap)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, seconds: f64, loss: Option<f64>) -> Layer {
        Layer {
            name: name.into(),
            parameters: 1,
            macs: 1,
            seconds,
            output: None,
            gradient_norm: None,
            without: loss.map(|loss| Quality {
                loss: Some(loss),
                ap: None,
            }),
            removed_by: None,
        }
    }

    #[test]
    fn what_costs_most_and_matters_least_comes_first() {
        let mut analysis = Analysis {
            pictures: 1,
            seconds: 10.0,
            parameters: 0,
            macs: 0,
            quality: Some(Quality {
                loss: Some(1.0),
                ap: Some(0.5),
            }),
            layers: vec![
                layer("fixed", 5.0, None),
                layer("cheap and needed", 0.5, Some(3.0)),
                layer("dear and useless", 2.0, Some(0.9)),
                layer("fixed and dearer", 6.0, None),
                layer("dear and needed", 1.5, Some(2.0)),
            ],
        };
        analysis.sort();
        let names: Vec<&str> = analysis.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "dear and useless",
                "dear and needed",
                "cheap and needed",
                "fixed and dearer",
                "fixed"
            ]
        );
        let [loss, ap] = analysis.changes(&analysis.layers[0]);
        assert!((loss.unwrap() + 0.1).abs() < 1e-12 && ap.is_none());
        let table = analysis.to_string();
        assert!(table.lines().nth(1).unwrap().contains("-0.1000"), "{table}");
    }
}
