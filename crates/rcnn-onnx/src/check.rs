//! Comparison of an exported file in ONNX Runtime with the model that it was made from.

use std::path::Path;

use burn::tensor::Tensor;
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor as OrtTensor;
use rcnn_backbone::Backbone;
use rcnn_detector::{DetectError, FasterRcnn, GeneralizedRcnnTransform, ImageList};
use rcnn_ops::DetectionBackend;
use rcnn_types::{Instances, Keypoints, MaskProbabilities, Size};

pub use crate::compare::{BOX_TOLERANCE, Comparison, MASK_TOLERANCE, SCORE_TOLERANCE};
use crate::{FixedShape, OnnxInput, OnnxOptions, OnnxPart};

/// Error of comparing an exported file with its model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The images, or the model.
    #[error(transparent)]
    Model(#[from] DetectError),
    /// ONNX Runtime's library could not be loaded.
    #[error("ONNX Runtime: {0}")]
    Library(#[from] ort::LoadDynamicError),
    /// ONNX Runtime rejects the file or the images.
    #[error("ONNX Runtime: {0}")]
    Runtime(#[from] ort::Error),
    /// The kind of file, or an image that it does not take.
    #[error("{0}")]
    Unsuitable(String),
}

/// Detects in images with an exported file, in ONNX Runtime on the CPU, and with the model, and compares.
///
/// `library` is ONNX Runtime's: `libonnxruntime.so`, `onnxruntime.dll`.
///
/// # Shapes
/// - images: each `[3, H, W]`, RGB from 0 to 1, of any sizes
///
/// # Errors
/// When ONNX Runtime cannot be loaded or rejects the file, or an image has no place in a file of fixed shapes.
pub fn check<B: DetectionBackend, N: Backbone<B>>(
    model: &FasterRcnn<B, N>,
    options: &OnnxOptions,
    file: &Path,
    library: &Path,
    images: &[Tensor<B, 3>],
) -> Result<Comparison, CheckError> {
    if options.part == OnnxPart::Body {
        let text = "a body detects nothing that could be compared";
        return Err(CheckError::Unsuitable(text.into()));
    }
    let environment = ort::init_from(library)?.build()?;
    let mut file = Exported::open(&environment, file, options.fixed)?;
    let mut comparison = Comparison::default();
    for (i, image) in images.iter().enumerate() {
        let images = std::slice::from_ref(image);
        let theirs = match options.input {
            OnnxInput::Tensor => file.detect(i, &model.transform, images)?,
            OnnxInput::Image => file.detect_picture(image)?,
        };
        let ours = model.detect(images)?;
        comparison.add(&ours[0], &theirs);
    }
    Ok(comparison)
}

/// A file in ONNX Runtime.
struct Exported {
    session: Session,
    fixed: Option<FixedShape>,
}

impl Exported {
    fn open(
        environment: &Environment,
        file: &Path,
        fixed: Option<FixedShape>,
    ) -> Result<Self, CheckError> {
        let session = Session::builder(environment)?.commit_from_file(file)?;
        Ok(Self { session, fixed })
    }

    /// Resizes an image as the model does and detects in it.
    fn detect<B: DetectionBackend>(
        &mut self,
        index: usize,
        transform: &GeneralizedRcnnTransform,
        images: &[Tensor<B, 3>],
    ) -> Result<Instances, CheckError> {
        // The file normalises.
        let transform = GeneralizedRcnnTransform {
            image_mean: [0.0; 3],
            image_std: [1.0; 3],
            ..transform.clone()
        };
        let resized: ImageList<B> = transform.forward(images)?;
        let padded = resized.padded_size();
        let (size, original) = (resized.image_sizes[0], resized.original_sizes[0]);
        if let Some(fixed) = self.fixed {
            let place = transform.pad(fixed.size);
            let fits = size.height <= fixed.size.height && size.width <= fixed.size.width;
            if place != padded || !fits {
                let Size { height, width } = fixed.size;
                return Err(CheckError::Unsuitable(format!(
                    "image {index} is resized to {}x{}, and the file takes {height}x{width}",
                    size.height, size.width
                )));
            }
        }
        // Without the padding that there may be, up to what the file takes.
        let place = self.fixed.map_or(size, |fixed| fixed.size);
        let pixels = resized
            .tensors
            .slice([0..1, 0..3, 0..place.height, 0..place.width]);
        let pixels: Vec<f32> = pixels
            .into_data()
            .convert::<f32>()
            .into_vec()
            .expect("floats");
        let batch = self.fixed.map_or(1, |fixed| fixed.batch);
        let shape = [batch, 3, place.height, place.width];
        let sizes = [size.height as i64, size.width as i64].repeat(batch);
        let inputs: Vec<(&str, SessionInputValue)> = vec![
            (
                "images",
                OrtTensor::from_array((shape, pixels.repeat(batch)))?.into(),
            ),
            (
                "image_sizes",
                OrtTensor::from_array(([batch, 2], sizes))?.into(),
            ),
        ];
        let mut found = self.run(inputs)?;
        found.resize(size, original);
        Ok(found)
    }

    /// Detects in a picture of bytes.
    fn detect_picture<B: DetectionBackend>(
        &mut self,
        image: &Tensor<B, 3>,
    ) -> Result<Instances, CheckError> {
        let [channels, height, width] = image.dims();
        let pixels = image
            .clone()
            .permute([1, 2, 0])
            .into_data()
            .convert::<f32>();
        let pixels: Vec<f32> = pixels.into_vec().expect("floats");
        let bytes: Vec<u8> = pixels
            .iter()
            .map(|value| (value * 255.0).round() as u8)
            .collect();
        let picture = OrtTensor::from_array(([height, width, channels], bytes))?;
        self.run(vec![("image", picture.into())])
    }

    /// The detections of the first image.
    fn run(&mut self, inputs: Vec<(&str, SessionInputValue)>) -> Result<Instances, CheckError> {
        let outputs = self.session.run(inputs)?;
        let (_, boxes) = outputs["boxes"].try_extract_tensor::<f32>()?;
        let (_, labels) = outputs["labels"].try_extract_tensor::<i64>()?;
        let (_, scores) = outputs["scores"].try_extract_tensor::<f32>()?;
        let count = match outputs.get("counts") {
            Some(counts) => counts.try_extract_tensor::<i64>()?.1[0] as usize,
            None => scores.len(),
        };
        let (boxes, _) = boxes.as_chunks::<4>();
        let labels = labels[..count].iter().map(|&label| label as usize);
        let mut found = Instances::new(boxes[..count].to_vec(), labels.collect());
        found.scores = Some(scores[..count].to_vec());
        if let Some(masks) = outputs.get("masks") {
            let (shape, values) = masks.try_extract_tensor::<f32>()?;
            let side = shape.last().map_or(1, |side| *side as usize);
            let masks = values.chunks(side * side).zip(&found.boxes);
            found.mask_probabilities = Some(
                masks
                    .map(|(values, &bbox)| mask(values, side, bbox))
                    .collect(),
            );
        }
        if let Some(points) = outputs.get("keypoints") {
            let (shape, values) = points.try_extract_tensor::<f32>()?;
            let each = shape.iter().rev().nth(1).map_or(1, |count| *count as usize);
            let (points, _) = values.as_chunks::<3>();
            let points = points.chunks(each).take(count);
            found.keypoints = Some(points.map(|points| Keypoints(points.to_vec())).collect());
        }
        Ok(found)
    }
}

fn mask(values: &[f32], side: usize, bbox: [f32; 4]) -> MaskProbabilities {
    MaskProbabilities {
        bbox,
        side,
        values: values.to_vec(),
    }
}
