//! Where to listen, and the bounds on what clients may ask for.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Where to listen, and the bounds on what clients may ask for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address and port; port 0 for any free one.
    pub listen: SocketAddr,
    /// The bearer token that requests must carry, if any.
    pub token: Option<String>,
    /// Most pictures computed together, at least 1.
    pub max_batch: usize,
    /// Time for which a batch waits for pictures that have arrived but are not decoded yet.
    pub batch_window: Duration,
    /// Most pictures that are waiting or being computed; further ones are answered with 429.
    pub queue: usize,
    /// Most bytes of a body.
    pub max_body: usize,
    /// Most pixels of a picture, told by its header before it is decoded.
    pub max_pixels: usize,
    /// Most connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// Most time for the body of a request to arrive, again for its answer to be computed, and again for the client to
    /// take it.
    pub timeout: Duration,
}

impl Options {
    /// Most bytes of all bodies together.
    pub(crate) fn all_bodies(&self) -> usize {
        self.max_body.saturating_mul(16)
    }

    /// Most pixels of all decoded pictures together: one is computed while another is decoded.
    pub(crate) fn all_pixels(&self) -> usize {
        self.max_pixels.saturating_mul(2)
    }

    /// Most time for the head of a request, and for a body to bring its next bytes.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout.min(Duration::from_secs(10))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            token: None,
            max_batch: 4,
            batch_window: Duration::from_millis(5),
            queue: 64,
            max_body: 32 << 20,
            max_pixels: 64 << 20,
            max_connections: 512,
            timeout: Duration::from_secs(60),
        }
    }
}
