//! Reference values: a safetensors file of tensors beside a JSON file of settings.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rcnn_burn::ops::BBox;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest error of a channel relative to its norm, in tolerances.
const CHANNEL: f64 = 4.0;
/// Rounding error that large values leave in a channel of small ones, in tolerances of the largest value.
const ROUNDING: f32 = 0.1;

/// Reference values of one case.
pub struct Fixture {
    bytes: Vec<u8>,
    /// Settings of the case.
    pub settings: Value,
}

impl Fixture {
    /// Opens `fixtures/<name>.safetensors` and `fixtures/<name>.json`.
    pub fn open(name: &str) -> Self {
        let settings = Self::json(name);
        Self {
            bytes: read(&format!("{name}.safetensors")),
            settings,
        }
    }

    /// Reads `fixtures/<name>.json`.
    pub fn json<T: DeserializeOwned>(name: &str) -> T {
        let bytes = read(&format!("{name}.json"));
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{name}.json: {error}"))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("fixture is safetensors")
    }

    /// Runs a check on every case `<operation>/...` of the settings, of which there is at least one.
    pub fn for_cases(&self, operation: &str, check: impl Fn(&str)) {
        let cases = self.settings.as_object().expect("an object");
        let prefix = format!("{operation}/");
        let cases: Vec<_> = cases
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .collect();
        assert!(!cases.is_empty(), "no case of {operation}");
        cases.into_iter().for_each(|name| check(name));
    }

    /// Asserts that the settings have these operations, with these numbers of cases.
    pub fn assert_cases(&self, expected: &[(&str, usize)]) {
        let mut found = BTreeMap::new();
        for name in self.settings.as_object().expect("an object").keys() {
            let (operation, _) = name.split_once('/').expect("an operation and a case");
            *found.entry(operation).or_insert(0) += 1;
        }
        assert_eq!(found, expected.iter().copied().collect());
    }

    /// A setting of a case.
    pub fn setting<T: DeserializeOwned>(&self, case: &str, name: &str) -> T {
        let value = self.settings[case][name].clone();
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{case}: {name}: {error}"))
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Names of the sampled tensors with this prefix.
    pub fn sampled(&self, prefix: &str) -> Vec<String> {
        let tensors = self.tensors();
        let names = tensors
            .names()
            .into_iter()
            .filter(|name| name.starts_with(prefix));
        let names = names.filter_map(|name| name.strip_suffix("#stride"));
        names.map(str::to_string).collect()
    }

    /// Shape and values of an f32 tensor as stored.
    pub fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let tensors = self.tensors();
        let view = tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("no tensor {name}"));
        let value = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
        (
            view.shape().to_vec(),
            view.data().chunks_exact(4).map(value).collect(),
        )
    }

    /// Values of an int64 tensor.
    pub fn ints(&self, name: &str) -> Vec<usize> {
        let tensors = self.tensors();
        let view = tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("no tensor {name}"));
        let value = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes")) as usize;
        view.data().chunks_exact(8).map(value).collect()
    }

    /// A tensor on the device.
    pub fn tensor<B: Backend, const D: usize>(
        &self,
        name: &str,
        device: &B::Device,
    ) -> Tensor<B, D> {
        let (shape, values) = self.floats(name);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Boxes, `[N, 4]`.
    pub fn boxes(&self, name: &str) -> Vec<BBox> {
        let (_, values) = self.floats(name);
        values
            .chunks_exact(4)
            .map(|b| [b[0], b[1], b[2], b[3]])
            .collect()
    }

    /// Asserts that a tensor has the shape of the reference and, where the reference sampled it,
    /// its values: within `tolerance` times the largest value of the reference and, channel by channel
    /// of maps and pooled features, within `CHANNEL` of the channel's norm.
    pub fn assert_sampled<B: Backend, const D: usize>(
        &self,
        name: &str,
        found: Tensor<B, D>,
        tolerance: f32,
    ) {
        let shape = self.ints(&format!("{name}#shape"));
        assert_eq!(found.dims().to_vec(), shape, "shape of {name}");
        let found: Vec<f32> = found.into_data().into_vec().expect("f32");
        self.assert_sampled_values(name, &found, tolerance);
        if let [_, channels, height, width] = shape[..] {
            self.assert_channels(
                name,
                &found,
                |at| at / (height * width) % channels,
                tolerance,
            );
        }
    }

    /// Compares each channel by itself: beside the largest value of all, a channel of small values may be
    /// wrong altogether.
    fn assert_channels(
        &self,
        name: &str,
        found: &[f32],
        channel: impl Fn(usize) -> usize,
        tolerance: f32,
    ) {
        let stride = self.ints(&format!("{name}#stride"))[0];
        let (_, expected) = self.floats(name);
        let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let mut channels: BTreeMap<usize, (Vec<f32>, Vec<f32>)> = BTreeMap::new();
        for (i, (found, expected)) in found.iter().step_by(stride).zip(expected).enumerate() {
            let (errors, values) = channels.entry(channel(i * stride)).or_default();
            errors.push(found - expected);
            values.push(expected);
        }
        for (channel, (errors, values)) in channels {
            let rounding = f64::from(ROUNDING * tolerance * largest) * (errors.len() as f64).sqrt();
            let (error, size) = (norm(errors.into_iter()), norm(values.into_iter()));
            let allowed = CHANNEL * f64::from(tolerance) * size + rounding;
            assert!(
                error <= allowed,
                "{name}, channel {channel}: an error of norm {error}, torchvision's values are of norm \
                 {size}, {allowed} is allowed"
            );
        }
    }

    /// [`assert_sampled`](Self::assert_sampled) on the values alone.
    pub fn assert_sampled_values(&self, name: &str, found: &[f32], tolerance: f32) {
        let stride = self.ints(&format!("{name}#stride"))[0];
        let found: Vec<f32> = found.iter().copied().step_by(stride).collect();
        assert_close(name, &found, &self.floats(name).1, tolerance);
    }

    /// Asserts that sampled values differ by no more than `tolerance` times their norm.
    pub fn assert_sampled_norm(&self, name: &str, found: &[f32], tolerance: f64) {
        let stride = self.ints(&format!("{name}#stride"))[0];
        let found: Vec<f32> = found.iter().copied().step_by(stride).collect();
        let expected = self.floats(name).1;
        assert_eq!(found.len(), expected.len(), "number of values of {name}");
        let error = norm(found.iter().zip(&expected).map(|(f, e)| f - e));
        let size = norm(expected.iter().copied());
        // Written so that NaN fails.
        assert!(
            error <= tolerance * size,
            "{name}: an error of norm {error}, torchvision's values are of norm {size}"
        );
    }
}

/// The root of the sum of squares.
pub fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

fn read(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Asserts that all values agree within `tolerance` times the largest expected value, or NaN.
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "number of values of {what}");
    let largest = expected
        .iter()
        .fold(0.0f32, |m, v| m.max(v.abs()))
        .max(f32::MIN_POSITIVE);
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let same = (f.is_nan() && e.is_nan()) || f == e || (f - e).abs() <= tolerance * largest;
        assert!(
            same,
            "{what}[{i}]: found {f}, torchvision has {e} (largest {largest})"
        );
    }
}
