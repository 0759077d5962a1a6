//! TensorFlow's way to cut boxes from a map: `crop_and_resize`, then a max-pool of its samples.

use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData};
use rcnn_types::Size;

use crate::channels::{primitive, tensor};
use crate::{BBox, DetectionBackend, RoiAlignOptions, RoiLevel, max_pool2d, multi_scale_roi_align};

/// The largest of `samples` x `samples` bilinear samples for each bin. All samples of a box divide it evenly, the first
/// and the last on its edges; those outside the map are zero.
///
/// # Shapes
/// - map: `[N, C, H, W]`
/// - boxes: N lists, xyxy in pixels of the images of `image_sizes`
/// - output: `[K, C, bins vertical, bins horizontal]`, image after image
pub fn crop_and_max_pool<B: DetectionBackend>(
    map: &Tensor<B, 4>,
    boxes: &[&[BBox]],
    image_sizes: &[Size],
    bins: [usize; 2],
    samples: usize,
) -> Tensor<B, 4> {
    let [_, _, height, width] = map.dims();
    let crops = Crops::new(Size::new(height, width), boxes, image_sizes, bins, samples);
    tensor(B::crop_and_max_pool(primitive(map.clone()), &crops))
}

/// Boxes to cut out of a map, with the arithmetic of TensorFlow's kernel in f32: a sample that rounding puts past the last
/// pixel is zero there, and so it is here.
#[derive(Debug, Clone, PartialEq)]
pub struct Crops {
    /// Index of each box's image in the batch.
    pub images: Vec<usize>,
    /// Samples of each box along the vertical and the horizontal axis.
    pub samples: Vec<[Samples; 2]>,
    /// Rows and columns of bins.
    pub bins: [usize; 2],
    /// Samples of a bin along each axis.
    pub per_bin: usize,
}

/// Samples of a box along an axis, in pixels of the map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Samples {
    first: f32,
    step: f32,
    count: usize,
    /// Position of the last pixel of the map.
    last: f32,
}

impl Samples {
    /// Samples of a box from `low` to `high`, in pixels of an image of length `image`, on a map of length `map`.
    fn new([low, high]: [f32; 2], image: usize, map: usize, count: usize) -> Self {
        let (scale, last) = (1.0 / image as f32, (map - 1) as f32);
        let (low, high) = (low * scale, high * scale);
        let (first, step) = match count {
            1 => (0.5 * (low + high) * last, 0.0),
            count => (low * last, (high - low) * last / (count - 1) as f32),
        };
        Self {
            first,
            step,
            count,
            last,
        }
    }

    /// Positions of the samples, on the map or outside of it.
    pub fn positions(self) -> impl Iterator<Item = f32> {
        (0..self.count).map(move |sample| self.first + sample as f32 * self.step)
    }

    /// 1 for each on the map, 0 for those outside.
    fn inside(self) -> impl Iterator<Item = f32> {
        let inside = move |position| (0.0..=self.last).contains(&position);
        self.positions()
            .map(move |position| if inside(position) { 1.0 } else { 0.0 })
    }

    /// Low and high edge of the box whose bins have the samples in their middles, for RoIAlign with pixels' centres at
    /// their middles.
    fn roi(self) -> [f32; 2] {
        let middle = 0.5;
        let last = self.first + (self.count - 1) as f32 * self.step;
        [
            self.first - self.step / 2.0 + middle,
            last + self.step / 2.0 + middle,
        ]
    }
}

impl Crops {
    fn new(
        map: Size,
        boxes: &[&[BBox]],
        image_sizes: &[Size],
        bins: [usize; 2],
        per_bin: usize,
    ) -> Self {
        let side = |side: fn(&Size) -> usize| image_sizes.iter().map(side).max().unwrap_or(1);
        let image = Size::new(side(|size| size.height), side(|size| size.width));
        let [rows, columns] = bins.map(|bins| bins * per_bin);
        let samples = |&[x1, y1, x2, y2]: &BBox| {
            [
                Samples::new([y1, y2], image.height, map.height, rows),
                Samples::new([x1, x2], image.width, map.width, columns),
            ]
        };
        let images = boxes.iter().enumerate();
        Self {
            images: images
                .flat_map(|(image, boxes)| vec![image; boxes.len()])
                .collect(),
            samples: boxes.iter().copied().flatten().map(samples).collect(),
            bins,
            per_bin,
        }
    }
}

/// [`DetectionBackend::crop_and_max_pool`] by RoIAlign.
pub(crate) fn reference<B: DetectionBackend>(map: FloatTensor<B>, crops: &Crops) -> FloatTensor<B> {
    let map = tensor::<B, 4>(map);
    let (count, device) = (crops.images.len(), map.device());
    let output_size @ [height, width] = crops.bins.map(|bins| bins * crops.per_bin);
    let boxes = crops.images.iter().zip(&crops.samples);
    let rois = boxes.flat_map(|(image, [vertical, horizontal])| {
        let ([x1, x2], [y1, y2]) = (horizontal.roi(), vertical.roi());
        [*image as f32, x1, y1, x2, y2]
    });
    let mut pooled = multi_scale_roi_align(vec![RoiLevel {
        features: map,
        rois: Tensor::from_data(TensorData::new(rois.collect(), [count, 5]), &device),
        rows: (0..count).collect(),
        options: RoiAlignOptions {
            output_size,
            spatial_scale: 1.0,
            sampling_ratio: 1,
            aligned: true,
        },
    }]);
    for (axis, shape) in [[count, 1, height, 1], [count, 1, 1, width]]
        .into_iter()
        .enumerate()
    {
        let inside = crops
            .samples
            .iter()
            .flat_map(|samples| samples[axis].inside());
        let inside: Vec<f32> = inside.collect();
        if inside.contains(&0.0) {
            let mask = Tensor::<B, 4>::from_data(TensorData::new(inside, shape), &device);
            let dtype = pooled.dtype();
            pooled = pooled * mask.cast(dtype);
        }
    }
    if crops.per_bin > 1 {
        let window = [crops.per_bin; 2];
        let pool = MaxPool2dConfig::new(window).with_strides(window);
        pooled = max_pool2d(&pool.init(), pooled);
    }
    primitive(pooled)
}
