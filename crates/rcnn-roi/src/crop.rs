//! TensorFlow's way to cut boxes from a map: `crop_and_resize`, then a max-pool of its samples.

use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::{Tensor, TensorData};
use rcnn_ops::{
    BBox, DetectionBackend, RoiAlignOptions, RoiLevel, max_pool2d, multi_scale_roi_align,
};
use rcnn_types::Size;

/// The largest of `samples` x `samples` bilinear samples for each bin. All samples of a box divide it evenly, the first
/// and the last on its edges; those outside the map are zero.
///
/// # Shapes
/// - map: `[N, C, H, W]`
/// - boxes: N lists, xyxy in pixels of the images of `image_sizes`
/// - output: `[K, C, bins vertical, bins horizontal]`, image after image
pub(crate) fn crop_and_max_pool<B: DetectionBackend>(
    map: &Tensor<B, 4>,
    boxes: &[&[BBox]],
    image_sizes: &[Size],
    bins: [usize; 2],
    samples: usize,
) -> Tensor<B, 4> {
    let [_, _, height, width] = map.dims();
    let crop @ [crop_height, crop_width] = bins.map(|bins| bins * samples);
    let side = |side: fn(&Size) -> usize| image_sizes.iter().map(side).max().unwrap_or(1);
    let vertical = Axis::new(side(|size| size.height), height, crop_height);
    let horizontal = Axis::new(side(|size| size.width), width, crop_width);

    let (mut rois, mut inside) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut count = 0;
    for (image, boxes) in boxes.iter().enumerate() {
        for &[x1, y1, x2, y2] in *boxes {
            let (x, y) = (horizontal.crop(x1, x2), vertical.crop(y1, y2));
            let ([x1, x2], [y1, y2]) = (horizontal.roi(x), vertical.roi(y));
            rois.extend([image as f32, x1, y1, x2, y2]);
            inside[0].extend(vertical.inside(y));
            inside[1].extend(horizontal.inside(x));
            count += 1;
        }
    }
    let device = map.device();
    let cropped = multi_scale_roi_align(vec![RoiLevel {
        features: map.clone(),
        rois: Tensor::from_data(TensorData::new(rois, [count, 5]), &device),
        rows: (0..count).collect(),
        options: RoiAlignOptions {
            output_size: crop,
            spatial_scale: 1.0,
            sampling_ratio: 1,
            aligned: true,
        },
    }]);
    let [rows, columns] = inside;
    let masks = [
        (rows, [count, 1, crop_height, 1]),
        (columns, [count, 1, 1, crop_width]),
    ];
    let cropped = masks.into_iter().fold(cropped, |cropped, (inside, shape)| {
        if inside.iter().all(|inside| *inside == 1.0) {
            return cropped;
        }
        let mask = Tensor::<B, 4>::from_data(TensorData::new(inside, shape), &device);
        let dtype = cropped.dtype();
        cropped * mask.cast(dtype)
    });
    if samples == 1 {
        return cropped;
    }
    let pool = MaxPool2dConfig::new([samples; 2]).with_strides([samples; 2]);
    max_pool2d(&pool.init(), cropped)
}

/// One axis of image, map and crop, with the arithmetic of TensorFlow's kernel in f32: a sample that rounding puts past
/// the last pixel is zero there, and so it is here.
#[derive(Clone, Copy)]
struct Axis {
    /// What coordinates of the image are multiplied by to lie between 0 and 1.
    scale: f32,
    /// Position of the last pixel of the map.
    last: f32,
    samples: usize,
}

/// Position of the first sample on the map, and the step from each to the next.
type Crop = [f32; 2];

impl Axis {
    fn new(image: usize, map: usize, samples: usize) -> Self {
        Self {
            scale: 1.0 / image as f32,
            last: (map - 1) as f32,
            samples,
        }
    }

    fn crop(self, low: f32, high: f32) -> Crop {
        let (low, high) = (low * self.scale, high * self.scale);
        match self.samples {
            1 => [0.5 * (low + high) * self.last, 0.0],
            samples => [
                low * self.last,
                (high - low) * self.last / (samples - 1) as f32,
            ],
        }
    }

    fn position(self, [first, step]: Crop, sample: usize) -> f32 {
        first + sample as f32 * step
    }

    /// Low and high edge of the box whose bins have the samples in their middles, for RoIAlign with pixels' centres at
    /// their middles.
    fn roi(self, crop @ [first, step]: Crop) -> [f32; 2] {
        let middle = 0.5;
        let last = self.position(crop, self.samples - 1);
        [first - step / 2.0 + middle, last + step / 2.0 + middle]
    }

    /// 1 for each sample on the map, 0 for those outside.
    fn inside(self, crop: Crop) -> impl Iterator<Item = f32> {
        (0..self.samples).map(move |sample| {
            let position = self.position(crop, sample);
            let inside = (0.0..=self.last).contains(&position);
            if inside { 1.0 } else { 0.0 }
        })
    }
}
