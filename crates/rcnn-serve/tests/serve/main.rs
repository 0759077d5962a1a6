//! The service over HTTP, in this process.

mod answers;
mod bounds;
mod browser;
mod client;
mod lifetime;
