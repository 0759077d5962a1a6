//! [`DetectionBackend`](crate::DetectionBackend) for Burn's backends.

mod autodiff;
#[cfg(feature = "cubecl")]
mod cubecl;
#[cfg(feature = "flex")]
pub(crate) mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;
