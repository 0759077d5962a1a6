//! Numbers as people write them.

/// The shortest decimal that reads as this number: 0.1, not 0.10000000149.
pub fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}
