//! Shared parts of the parity tests: reference values of torchvision and the rule for synthetic weights.

mod fixture;
pub mod synthetic;

pub use fixture::{Fixture, assert_close, norm};
