//! Model weights from files: torchvision's checkpoints and this project's own, and where torchvision publishes them.
//!
//! [`Checkpoint`] is any file of tensors; [`Weights`] are those of a detector, with the configuration that is stored in the
//! file or recognised by their names and shapes.
//!
//! ```
//! # mod rcnn_burn { pub use weights_import as weights; }
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(&folder)?;
//! # std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/rcnn-core/assets/blood-cells.bpk"), "cells.bpk")?;
//! use rcnn_burn::weights::{Checkpoint, Weights};
//!
//! let checkpoint = Checkpoint::open("cells.bpk")?; // or a .pth, .safetensors, frozen graph, ...
//! for (name, tensor) in checkpoint.iter().take(3) {
//!     println!("{name}: {:?}", tensor.shape);
//! }
//! let weights = Weights::from_checkpoint(&checkpoint)?; // or at once: Weights::open("cells.bpk")
//! println!("{}, {} classes", weights.config.backbone, weights.config.num_classes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod burnpack;
mod checkpoint;
#[cfg(feature = "download")]
pub mod download;
mod error;
mod names;
mod origin;
mod pickle;
pub mod published;
mod pytorch;
mod recognize;
mod safetensors;
mod shards;
mod source;
mod state_dict;
mod storage;
mod surgery;
mod tensorflow;
mod weights;

pub use burnpack::Precision;
pub use checkpoint::{Checkpoint, Format};
pub use error::CheckpointError;
pub use names::torchvision_names;
pub use origin::ConfigOrigin;
pub use state_dict::{
    LoadReport, StateDict, StateTensor, load_state_dict, parameter_shapes, state_dict,
};
pub use storage::StoredTensor;
pub use surgery::SurgeryReport;
pub use tensorflow::exists;
#[doc(hidden)]
pub use tensorflow::{label_map, pipeline_config};
pub use weights::{Weights, WeightsError, load_backbone, load_backbone_from};
