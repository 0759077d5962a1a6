//! Model weights from files: torchvision's checkpoints and this project's own, and where torchvision publishes them.

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
