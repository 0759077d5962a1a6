//! Models of the TensorFlow Object Detection API: frozen graphs, checkpoints, and the files beside them.

mod bundle;
mod graph;
mod locate;
mod model;
mod names;
mod pipeline;
mod table;
mod text;
mod wire;

pub(crate) use bundle::{is_index, read as read_checkpoint};
pub(crate) use graph::{is_graph, read as read_graph};
pub use locate::exists;
pub(crate) use locate::locate;
pub(crate) use model::recognize;
pub(crate) use names::parameters;

use burn::tensor::{BoolStore, DType};
use rcnn_detector::FasterRcnnConfig;

/// The detector that a `pipeline.config` describes, for the fuzz targets.
#[doc(hidden)]
pub fn pipeline_config(text: &str) -> Result<FasterRcnnConfig, String> {
    let mut config = FasterRcnnConfig::faster_rcnn_inception_v2_coco(4);
    pipeline::apply(&mut config, text).map(|()| config)
}

/// Names in a label map of that many classes with the background, for the fuzz targets.
#[doc(hidden)]
pub fn label_map(text: &str, num_classes: usize) -> Result<Vec<String>, String> {
    pipeline::class_names(text, num_classes)
}

/// The checksum that checkpoints have of bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    table::checksum(&[bytes])
}

/// The type of elements that a `DataType` stands for; none for texts and others that are no numbers.
fn burn_dtype(dtype: u64) -> Option<DType> {
    Some(match dtype {
        1 => DType::F32,
        2 => DType::F64,
        3 => DType::I32,
        4 => DType::U8,
        5 => DType::I16,
        6 => DType::I8,
        9 => DType::I64,
        10 => DType::Bool(BoolStore::Native),
        14 => DType::BF16,
        17 => DType::U16,
        19 => DType::F16,
        22 => DType::U32,
        23 => DType::U64,
        _ => return None,
    })
}
