//! Inception v2 (Szegedy et al. 2015, <https://arxiv.org/abs/1512.00567>) as TensorFlow's Object Detection API cuts it:
//! up to `Mixed_4e` it is the backbone, and `Mixed_5a` to `Mixed_5c` are the box head.
//!
//! Modules have the names of TensorFlow's scopes in small letters.

mod block;
mod config;
mod module;
mod recognize;
mod table;
pub mod tensorflow;

pub use block::{Branch, InceptionBlock, Pool};
pub use config::{InceptionV2Config, InceptionV2Depth, InceptionV2HeadConfig};
pub use module::{InceptionV2, InceptionV2Head, SeparableConv};
