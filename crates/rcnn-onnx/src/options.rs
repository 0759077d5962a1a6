//! Options of an export.

use rcnn_types::Size;

use crate::error::OnnxError;

/// How a model is exported. The default is one file for any batch and any size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Store weights in half precision: half the size, and computed in single precision.
    pub half_weights: bool,
    /// Version of ONNX's operators, 13 to 21 (ONNX Runtime has no RoiAlign of version 22). The default is 13, whose RoiAlign
    /// is the same in all runtimes.
    pub opset: i64,
    /// Fixed sizes of everything; outputs are padded to the most detections of an image and counted.
    pub fixed: Option<FixedShape>,
    /// Form of the input.
    pub input: OnnxInput,
    /// Part of the detector that is written.
    pub part: OnnxPart,
    /// How features are pooled.
    pub pooling: Pooling,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            half_weights: false,
            opset: *OPSETS.start(),
            fixed: None,
            input: OnnxInput::Tensor,
            part: OnnxPart::Detector,
            pooling: Pooling::RoiAlign,
        }
    }
}

/// Number and size of the images of a file of fixed shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedShape {
    /// Images at once.
    pub batch: usize,
    /// Height and width of the images.
    pub size: Size,
}

/// Form of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnnxInput {
    /// Images `[batch, 3, height, width]` from 0 to 1, resized by the caller.
    #[default]
    Tensor,
    /// One picture `[height, width, 3]` of bytes, of any size; boxes come out in its pixels.
    Image,
}

/// Part of the detector that a file computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnnxPart {
    /// Detections.
    #[default]
    Detector,
    /// Feature maps, and objectness and deltas of their anchors: for runtimes that have no
    /// non-maximum suppression.
    Body,
}

/// How features of boxes are pooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// By the operator RoiAlign.
    #[default]
    RoiAlign,
    /// By Gather and arithmetic, for runtimes that have no RoiAlign. Slower.
    Gather,
}

/// Versions of ONNX's operators that files are written for.
pub(crate) const OPSETS: std::ops::RangeInclusive<i64> = 13..=21;

/// Most pixels of an image of fixed size, before it is resized.
const MOST_PIXELS: usize = i32::MAX as usize;

impl OnnxOptions {
    pub(crate) fn validate(&self) -> Result<(), OnnxError> {
        let fault = |text: String| Err(OnnxError::Options(text));
        if !OPSETS.contains(&self.opset) {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return fault(format!("opset {}: expected {first} to {last}", self.opset));
        }
        if self.input == OnnxInput::Image && self.part == OnnxPart::Body {
            return fault("a body takes images that are resized; it has no image input".into());
        }
        match self.fixed {
            Some(FixedShape { batch: 0, .. }) => fault("a batch of no images".into()),
            Some(FixedShape { size, .. }) if !(1..=MOST_PIXELS).contains(&size.pixels()) => {
                let Size { height, width } = size;
                let expected = format!("expected 1 to {MOST_PIXELS} pixels");
                fault(format!("images of {height}x{width} pixels: {expected}"))
            }
            Some(FixedShape { batch: 2.., .. }) if self.input == OnnxInput::Image => {
                fault("the image input takes one picture; the batch must be 1".into())
            }
            _ => Ok(()),
        }
    }
}
