//! Why a model cannot be exported.

use rcnn_detector::DetectError;
use rcnn_files::WriteError;

/// Error for a model that cannot be exported, or a file that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The configuration, or feature maps that contradict it.
    #[error(transparent)]
    Model(#[from] DetectError),
    /// An operation of the network that has no form in ONNX here.
    #[error("{module} (layer `{layer}`): {operation} cannot be exported to ONNX")]
    Unsupported {
        /// The operation.
        operation: String,
        /// Path of the module that it belongs to.
        module: String,
        /// The layer that hooks see it in.
        layer: String,
    },
    /// A setting that has no form in ONNX here.
    #[error("{field} = {found}: cannot be exported to ONNX; expected {expected}")]
    Setting {
        /// The field of the configuration, under torchvision's name.
        field: &'static str,
        /// Its value.
        found: String,
        /// Settings that can be exported.
        expected: &'static str,
    },
    /// Other sizes of image lead to other operations.
    #[error(
        "the backbone's computation depends on the image size, which a file for any size cannot express: give a fixed size"
    )]
    SizeDependent,
    /// A tensor whose values are neither a parameter's nor made during the forward pass.
    #[error(
        "a tensor of shape {shape:?} is not a parameter of the model, and its values are unknown"
    )]
    UnknownTensor {
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A setting of the export that does not go with the model or with another.
    #[error("{0}")]
    Options(String),
    /// More than a protobuf message can hold.
    #[error(
        "the file would have {} MiB, and ONNX files have at most 2048: half-precision weights take half the space",
        .bytes >> 20
    )]
    TooLarge {
        /// Size of the file.
        bytes: usize,
    },
    /// A node of the graph whose operands do not fit, or a file that does not read as it was written: a fault
    /// of this program. No file is left.
    #[error(
        "{node}: {reason}; the exported file would not be valid ONNX, which is a bug in this program"
    )]
    Invalid {
        /// The node.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// The file could not be written. What was there before still is.
    #[error(transparent)]
    Write(#[from] WriteError),
}
