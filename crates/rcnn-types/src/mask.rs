//! Masks as run lengths: COCO's RLE, with the results of `pycocotools.mask`.

mod compressed;
mod json;
mod polygons;
mod probabilities;
mod roi_align;

pub use probabilities::MaskProbabilities;

use crate::{BBox, Size};

/// The probability from which on a pixel belongs to a predicted mask, as in torchvision's examples and
/// references.
pub const MASK_THRESHOLD: f32 = 0.5;

/// A binary mask of an image, as lengths of runs down its columns, background and object in turn,
/// beginning with the background (COCO's RLE).
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types as types; }
/// use rcnn_burn::types::{Mask, Size};
///
/// let triangle = vec![1.0, 1.0, 6.0, 1.0, 1.0, 5.0];
/// let mask = Mask::from_polygons(&[triangle], Size::new(6, 8));
/// assert_eq!((mask.area(), mask.bounds()), (10, [1.0, 1.0, 5.0, 5.0]));
/// assert_eq!(Mask::from_compressed(&mask.to_compressed(), mask.size())?, mask);
/// # Ok::<(), rcnn_types::MaskError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    size: Size,
    counts: Vec<u32>,
}

/// Run lengths that do not make a mask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// The runs do not add up to the image.
    #[error("runs of {found} pixels for {height}x{width} (height x width)", height = size.height, width = size.width)]
    Length {
        /// Sum of the runs.
        found: u64,
        /// Size of the image.
        size: Size,
    },
    /// The image has more pixels than a run can count.
    #[error("{}x{} pixels (height x width) are more than a mask can have", size.height, size.width)]
    TooLarge {
        /// Size of the image.
        size: Size,
    },
    /// A compressed run is cut off or has a character that is none of its alphabet.
    #[error("run {run} of a compressed mask is not valid")]
    Compressed {
        /// Which of the runs, from 0.
        run: usize,
    },
}

/// Part of a column that belongs to the object: the column, its first row, and the row after its last.
type Segment = (usize, usize, usize);

impl Mask {
    /// Creates a mask without an object.
    ///
    /// # Panics
    /// When the image has 2^32 pixels or more.
    pub fn empty(size: Size) -> Self {
        Self::from_runs(size, [])
    }

    /// Creates a mask of run lengths (COCO's uncompressed RLE).
    ///
    /// # Errors
    /// When they do not add up to the image.
    pub fn from_counts(counts: Vec<u32>, size: Size) -> Result<Self, MaskError> {
        let found = counts.iter().copied().map(u64::from).sum();
        match u32::try_from(size.pixels()) {
            Err(_) => Err(MaskError::TooLarge { size }),
            Ok(pixels) if u64::from(pixels) != found => Err(MaskError::Length { found, size }),
            Ok(_) => Ok(Self { size, counts }),
        }
    }

    /// Creates a mask of single pixels, `[height, width]` row by row.
    ///
    /// # Panics
    /// When there are more or fewer than the image has, or 2^32 or more.
    pub fn from_bits(bits: &[bool], size: Size) -> Self {
        let Size { height, width } = size;
        assert_eq!(bits.len(), height * width, "bits of {height}x{width}");
        let columns = (0..width).flat_map(|x| (0..height).map(move |y| (x, y)));
        let object = columns.filter(|&(x, y)| bits[y * width + x]);
        Self::from_segments(size, object.map(|(x, y)| (x, y, y + 1)))
    }

    /// A mask of ranges of pixels, counted down the columns, in order and without overlaps.
    fn from_runs(size: Size, runs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let total = size.pixels();
        assert!(u32::try_from(total).is_ok(), "a mask of {total} pixels");
        let mut counts = Vec::new();
        // Where the last run of the object ended.
        let mut end = 0;
        for (start, stop) in runs.into_iter().filter(|(start, stop)| start < stop) {
            match counts.last_mut() {
                Some(last) if start == end => *last += (stop - start) as u32,
                _ => counts.extend([(start - end) as u32, (stop - start) as u32]),
            }
            end = stop;
        }
        if end < total || counts.is_empty() {
            counts.push((total - end) as u32);
        }
        Self { size, counts }
    }

    /// A mask of parts of columns, in order and without overlaps.
    fn from_segments(size: Size, segments: impl IntoIterator<Item = Segment>) -> Self {
        let height = size.height;
        let run = |(x, top, bottom): Segment| (x * height + top, x * height + bottom);
        Self::from_runs(size, segments.into_iter().map(run))
    }

    /// Size of the image.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Run lengths down the columns, background and object in turn, beginning with the background.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The single pixels, `[height, width]` row by row.
    pub fn to_bits(&self) -> Vec<bool> {
        let mut bits = vec![false; self.size.pixels()];
        for (x, top, bottom) in self.segments() {
            (top..bottom).for_each(|y| bits[y * self.size.width + x] = true);
        }
        bits
    }

    /// Ranges of the object's pixels, counted down the columns.
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let pairs = self.counts.chunks_exact(2).scan(0, |end, pair| {
            let start = *end + pair[0] as usize;
            *end = start + pair[1] as usize;
            Some((start, *end))
        });
        pairs.filter(|(start, end)| start < end)
    }

    /// Parts of columns that belong to the object.
    fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        let height = self.size.height;
        self.runs().flat_map(move |(start, end)| {
            (start / height..=(end - 1) / height).map(move |x| {
                let top = x * height;
                (x, start.max(top) - top, end.min(top + height) - top)
            })
        })
    }

    /// Number of the object's pixels.
    pub fn area(&self) -> u64 {
        self.runs().map(|(start, end)| (end - start) as u64).sum()
    }

    /// The box around the object; zeros when there is none.
    pub fn bounds(&self) -> BBox {
        let around = self.segments().fold(None, |around, (x, top, bottom)| {
            let [x1, y1, x2, y2] = around.unwrap_or([x, top, x + 1, bottom]);
            Some([x1.min(x), y1.min(top), x2.max(x + 1), y2.max(bottom)])
        });
        around.unwrap_or_default().map(|edge| edge as f32)
    }

    /// Intersection over union with the mask of an object in the same image; where that is a crowd, over
    /// the area of this one, as in COCO's evaluation. 0 where neither has pixels.
    pub fn iou(&self, object: &Self, is_crowd: bool) -> f64 {
        let (mut shared, mut others) = (0, object.runs().peekable());
        for (start, end) in self.runs() {
            while let Some(&(from, to)) = others.peek() {
                shared += end.min(to).saturating_sub(start.max(from)) as u64;
                // The next run of this mask may reach into it too.
                if to > end {
                    break;
                }
                others.next();
            }
        }
        let all = match is_crowd {
            true => self.area(),
            false => self.area() + object.area() - shared,
        };
        shared as f64 / all.max(1) as f64
    }

    /// The pixels of either of two masks of the same size.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn union(&self, other: &Self) -> Self {
        assert_eq!(self.size, other.size, "masks of one size");
        let mut runs: Vec<(usize, usize)> = self.runs().chain(other.runs()).collect();
        runs.sort_unstable();
        let mut end = 0;
        let apart = runs.into_iter().map(|(start, stop)| {
            let start = start.max(end);
            end = end.max(stop);
            (start, stop)
        });
        Self::from_runs(self.size, apart)
    }

    /// The pixels that are not those of another mask of the same size.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn subtract(&self, other: &Self) -> Self {
        assert_eq!(self.size, other.size, "masks of one size");
        let (mut left, mut others) = (Vec::new(), other.runs().peekable());
        for (mut start, end) in self.runs() {
            while let Some(&(from, to)) = others.peek() {
                if from >= end {
                    break;
                }
                left.push((start, from.max(start)));
                start = start.max(to);
                // The next run may be cut by it too.
                if to > end {
                    break;
                }
                others.next();
            }
            left.push((start, end.max(start)));
        }
        Self::from_runs(self.size, left)
    }

    /// The mask mirrored left to right.
    pub fn flip(&self) -> Self {
        let mut segments: Vec<Segment> = self.segments().collect();
        let last = self.size.width.saturating_sub(1);
        segments.iter_mut().for_each(|s| s.0 = last - s.0);
        segments.sort_unstable();
        Self::from_segments(self.size, segments)
    }

    /// The mask turned upside down: its pixels in reverse order.
    pub fn rotate_180(&self) -> Self {
        let total = self.size.pixels();
        let mut runs: Vec<_> = self.runs().collect();
        runs.reverse();
        let runs = runs
            .into_iter()
            .map(|(start, end)| (total - end, total - start));
        Self::from_runs(self.size, runs)
    }

    /// The part in a window `[left, top, right, bottom]` within the image, as a mask of its size.
    pub fn crop(&self, window: [u32; 4]) -> Self {
        let [left, top, right, bottom] = window.map(|edge| edge as usize);
        let within = |&(x, ..): &Segment| (left..right).contains(&x);
        let cut = |(x, y1, y2): Segment| {
            let row = |y: usize| y.clamp(top, bottom) - top;
            (x - left, row(y1), row(y2))
        };
        let segments = self.segments().filter(within).map(cut);
        Self::from_segments(Size::new(bottom - top, right - left), segments)
    }

    /// Places the mask in a larger image.
    pub fn paste(&self, left: u32, top: u32, size: Size) -> Self {
        let (left, top) = (left as usize, top as usize);
        let moved = |(x, y1, y2): Segment| (x + left, y1 + top, y2 + top);
        Self::from_segments(size, self.segments().map(moved))
    }

    /// The mask of the image resized, with the nearest pixels (torch's `interpolate`, as torchvision
    /// resizes masks).
    pub fn resize(&self, size: Size) -> Self {
        let sources = |from: usize, to: usize| {
            let scale = from as f32 / to as f32;
            let source = move |index: usize| ((index as f32 * scale) as usize).min(from - 1);
            (0..to).map(source).collect::<Vec<_>>()
        };
        if self.size.pixels() == 0 {
            return Self::empty(size);
        }
        let rows = sources(self.size.height, size.height);
        let columns = sources(self.size.width, size.width);
        let mut segments = Vec::new();
        for (x, top, bottom) in self.segments() {
            let from = |index: usize, sources: &[usize]| sources.partition_point(|s| *s < index);
            let (top, bottom) = (from(top, &rows), from(bottom, &rows));
            let columns = from(x, &columns)..from(x + 1, &columns);
            segments.extend(columns.map(|x| (x, top, bottom)));
        }
        segments.sort_unstable();
        Self::from_segments(size, segments)
    }
}

#[cfg(test)]
mod tests;
