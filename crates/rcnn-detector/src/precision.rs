//! Inference in half precision.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor, backend::Backend};
use rcnn_backbone::Backbone;
use rcnn_ops::DetectionBackend;

use crate::FasterRcnn;

/// Error for a precision that a device cannot compute in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{device} cannot compute in {}", format!("{dtype:?}").to_lowercase())]
pub struct PrecisionError {
    /// The device, as its backend names it.
    pub device: String,
    /// The precision.
    pub dtype: FloatDType,
}

struct Cast(FloatDType);

impl<B: Backend> ModuleMapper<B> for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}

impl<B: DetectionBackend, N: Backbone<B>> FasterRcnn<B, N> {
    /// The detector with its parameters in another precision, such as `F16`, for inference. Feature
    /// maps are in it too; boxes and scores stay in f32.
    ///
    /// # Errors
    /// When the device cannot compute in it.
    pub fn cast(self, dtype: FloatDType) -> Result<Self, PrecisionError> {
        let device = self.rpn.head.cls_logits.weight.val().device();
        if !B::supports_dtype(&device, dtype.into()) {
            let device = format!("{} on {device:?}", B::name(&device));
            return Err(PrecisionError { device, dtype });
        }
        Ok(self.map(&mut Cast(dtype)))
    }

    /// The precision of the parameters.
    pub(crate) fn dtype(&self) -> FloatDType {
        self.rpn.head.cls_logits.weight.val().dtype().into()
    }
}
