//! A detector as an HTTP service, and a page to try it in a browser.
//!
//! [`Server::bind`] listens; [`Server::run`] answers until it is told to stop:
//!
//! ```no_run
//! use rcnn_burn::Flex;
//! use rcnn_burn::weights::Weights;
//! use rcnn_serve::{Detector, Options, Server, interrupted};
//!
//! let server = Server::bind(Options::default())?;
//! println!("http://{}", server.local_addr());
//! let load = || -> Result<Detector, Box<dyn std::error::Error + Send + Sync>> {
//!     let device = Default::default();
//!     let model = Weights::open("cells.bpk")?.load::<Flex>(&device)?;
//!     Ok(Detector::new("cells", "flex", model, device)?)
//! };
//! server.run(load, interrupted())?;
//! # Ok::<(), rcnn_serve::ServeError>(())
//! ```
//!
//! One thread runs the model on batches, or several threads run it on single small pictures. Another thread does everything
//! else, and hands decoding to a few more. What clients send is bounded in number, bytes, pixels and time before it costs anything
//! ([`Options`]), and each bound has its status: 413, 429, 408, 503.

/// The program of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/serving.md")]
struct Guide;

mod access;
mod batches;
mod body;
mod detect;
mod detector;
mod metrics;
mod options;
mod pages;
mod query;
mod refusal;
mod server;
mod stalls;

pub use detector::{Detector, ModelInfo, Thresholds};
pub use options::Options;
pub use server::{ServeError, Server, interrupted};

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use batches::Queue;
use metrics::Metrics;

/// State that all requests share.
struct App {
    options: Options,
    /// Set once the model is loaded.
    model: OnceLock<ModelInfo>,
    is_stopping: AtomicBool,
    queue: Arc<Queue>,
    metrics: Metrics,
    /// Bytes that bodies may take together.
    body_bytes: Arc<Semaphore>,
    /// Pixels that pictures may have together from decoding to their detections.
    pixels: Arc<Semaphore>,
    /// Pictures that may be decoded at the same time.
    decoders: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}
