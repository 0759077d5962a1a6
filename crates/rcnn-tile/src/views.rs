//! Detection in several views of a picture.

use burn::tensor::Tensor;
use rcnn_backbone::Backbone;
use rcnn_detector::{DetectError, FasterRcnn};
use rcnn_ops::DetectionBackend;
use rcnn_types::validate::{InvalidField, require};
use rcnn_types::{Instances, Size, Skeleton, TileGrid, Window};

use crate::augmentation::View;
use crate::{Merge, TestTimeAugmentation};

/// The views of a picture in which objects are looked for, and how what they found becomes one list.
///
/// The default is the picture itself, as [`FasterRcnn::detect`] takes it. A single view, such as the one tile of a picture
/// that is no larger, is not merged: its detections are those of the detector, bit for bit.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// Tiles to cut the picture into; `None` for the whole picture alone.
    pub tiles: Option<TileGrid>,
    /// Whether the whole picture is a view besides several tiles, for objects that are larger than a tile.
    pub full_image: bool,
    /// Further views of each tile and of the whole picture.
    pub augmentation: TestTimeAugmentation,
    /// How detections become one list.
    pub merge: Merge,
    /// Tiles computed together; 0 counts as 1.
    pub batch_size: usize,
}

impl Default for Views {
    fn default() -> Self {
        Self {
            tiles: None,
            full_image: false,
            augmentation: TestTimeAugmentation::default(),
            merge: Merge::default(),
            batch_size: 1,
        }
    }
}

impl Views {
    /// Checks every field.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn validate(&self) -> Result<(), InvalidField> {
        self.tiles.map_or(Ok(()), |grid| grid.validate())?;
        self.augmentation.validate()?;
        self.merge.validate()
    }

    /// The parts of a picture that are looked at: the tiles, and last the whole where it is one.
    fn windows(&self, picture: Size) -> Vec<Window> {
        let (width, height) = picture.dimensions();
        let whole = [0, 0, width, height];
        let Some(grid) = self.tiles else {
            return vec![whole];
        };
        let tiles = grid.tiles(picture);
        let whole = (self.full_image && tiles.len() > 1).then_some(whole);
        tiles.chain(whole).collect()
    }

    /// Finds the objects of a picture, whose parts `read` returns: `[3, height, width]` of a window, RGB from 0 to 1. Tiles
    /// are asked for row by row and not kept; `progress` gets the number of windows that are done and of all.
    ///
    /// Boxes, predicted masks and keypoints are in the picture's pixels, best first. The detector's limits, such as
    /// `detections_per_img`, are those of a view.
    ///
    /// # Errors
    /// Those of `read` and of [`FasterRcnn::detect`], and when the views are not valid, or keypoints without names,
    /// whose left and right nobody knows, would have to be mirrored.
    pub fn detect<B, N, E>(
        &self,
        model: &FasterRcnn<B, N>,
        picture: Size,
        mut read: impl FnMut(Window) -> Result<Tensor<B, 3>, E>,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Instances, E>
    where
        B: DetectionBackend,
        N: Backbone<B>,
        E: From<DetectError>,
    {
        self.validate().map_err(DetectError::from)?;
        let skeletons = self.skeletons(model).map_err(DetectError::from)?;
        let (windows, views) = (self.windows(picture), self.augmentation.views());
        let mut found = Instances::default();
        let mut done = 0;
        let same_size =
            |a: &Window, b: &Window| a[2] - a[0] == b[2] - b[0] && a[3] - a[1] == b[3] - b[1];
        for alike in windows.chunk_by(same_size) {
            for batch in alike.chunks(self.batch_size.max(1)) {
                let images: Vec<Tensor<B, 3>> = batch
                    .iter()
                    .map(|&window| read(window))
                    .collect::<Result<_, _>>()?;
                for view in &views {
                    let seen = view.detect(model, &images, &skeletons)?;
                    for (mut seen, &[left, top, ..]) in seen.into_iter().zip(batch) {
                        seen.paste(left, top, picture);
                        found.append(seen);
                    }
                }
                done += batch.len();
                progress(done, windows.len());
            }
        }
        Ok(match windows.len() * views.len() {
            1 => found,
            _ => self.merge.apply(found, picture, views.len()),
        })
    }

    /// The keypoints of each class, for mirroring.
    fn skeletons<B, N>(&self, model: &FasterRcnn<B, N>) -> Result<Vec<Skeleton>, InvalidField>
    where
        B: DetectionBackend,
        N: Backbone<B>,
    {
        let Some(keypoint) = model
            .roi_heads
            .config
            .keypoint
            .as_ref()
            .filter(|_| self.augmentation.flip)
        else {
            return Ok(Vec::new());
        };
        require(
            !keypoint.names.is_empty(),
            "keypoint.names",
            &keypoint.names,
            "names such as left_eye, as mirrored views swap left and right (tta flip)",
        )?;
        let skeleton = Skeleton {
            names: keypoint.names.clone(),
            ..Skeleton::default()
        };
        Ok(vec![skeleton; model.num_classes()])
    }
}

impl View {
    /// Detections in this view of each image, in the pixels of the image.
    fn detect<B: DetectionBackend, N: Backbone<B>>(
        self,
        model: &FasterRcnn<B, N>,
        images: &[Tensor<B, 3>],
        skeletons: &[Skeleton],
    ) -> Result<Vec<Instances>, DetectError> {
        if !self.flip {
            return model.detect_at_scale(images, self.scale);
        }
        let mirrored: Vec<_> = images.iter().map(|image| image.clone().flip([2])).collect();
        let mut found = model.detect_at_scale(&mirrored, self.scale)?;
        for (found, image) in found.iter_mut().zip(images) {
            found.flip(image.dims()[2], skeletons);
        }
        Ok(found)
    }
}
