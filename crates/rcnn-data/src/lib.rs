//! Data sets for object detection: reading, checking and writing COCO, Pascal VOC and YOLO labels,
//! augmentation, and a loader that gives the same batches for the same seed.
//!
//! Nothing here depends on a tensor library.
//!
//! ```
//! # mod rcnn_burn { pub use rcnn_data as data; }
//! # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"))?;
//! use std::sync::Arc;
//!
//! use rcnn_burn::data::{Augmentation, Loader, LoaderOptions, ReadOptions, read};
//!
//! let dataset = read("blood-cells".as_ref(), &ReadOptions::default())?.accept(false)?;
//! let options = LoaderOptions { batch_size: 2, ..LoaderOptions::default() };
//! let loader = Loader::new(Arc::new(dataset), Augmentation::default(), options)?;
//! for batch in loader.epoch(0) {
//!     for example in batch {
//!         println!("{} boxes", example?.instances.len());
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod annotations;
pub mod augment;
mod batch;
pub mod check;
mod coco;
pub mod convert;
mod dataset;
mod detect_format;
mod doubts;
mod error;
mod extras;
mod files;
mod loader;
mod pictures;
mod problems;
mod random;
mod repeat;
mod shapes;
mod split;
mod text;
pub mod tile;
mod tree;
mod turn;
mod validate;
mod voc;
mod yolo;

pub use augment::Augmentation;
pub use batch::Sampler;
pub use dataset::{BACKGROUND, Dataset, Fields, ReadOptions, Reading, Sample, Source, read};
pub use detect_format::{Format, UnknownFormat, detect_format};
pub use error::DataError;
pub use extras::Extras;
pub use loader::{Decode, Epoch, Example, LoadError, Loader, LoaderOptions};
pub use problems::{Problem, ProblemKind, Problems};
pub use repeat::{epoch_length, repeat_factors};
pub use split::{Fractions, random_split};
