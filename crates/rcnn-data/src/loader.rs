//! Decodes and augments in the background, and yields batches in an order that a seed sets.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use image::RgbImage;
use rand::RngExt;
use rand::seq::SliceRandom;
use rcnn_image::ImageError;
use rcnn_types::validate::InvalidField;
use rcnn_types::{Instances, Size};

use crate::augment::{Augmentation, Labelled, chance, copy_paste, mosaic};
use crate::batch::Sampler;
use crate::dataset::Dataset;
use crate::random::{Purpose, generator};
use crate::repeat::{epoch_length, repeated};

/// Reads an image file as upright RGB.
pub type Decode = dyn Fn(&Path) -> Result<RgbImage, Box<dyn Error + Send + Sync>> + Send + Sync;

/// Options for loading a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Whether the order is by chance.
    pub shuffle: bool,
    /// Whether a last batch of fewer samples is left out.
    pub drop_last: bool,
    /// The seed of order and augmentation.
    pub seed: u64,
    /// Threads that decode; their number doesn't change what is yielded.
    pub threads: usize,
    /// Number of pictures that each thread may be ahead.
    pub ahead: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 1,
            shuffle: true,
            drop_last: false,
            seed: 0,
            threads: 2,
            ahead: 2,
        }
    }
}

/// A sample as training sees it: decoded and augmented.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The index in [`Dataset::samples`].
    pub index: usize,
    /// The sample's number; see [`crate::Sample::image_id`].
    pub image_id: u64,
    /// The pixels.
    pub image: RgbImage,
    /// Its objects, without crowds, in pixels of this picture.
    pub instances: Instances,
    /// The length in pixels that the shorter side is to be resized to, drawn from
    /// [`Augmentation::min_sizes`].
    pub min_size: Option<u32>,
}

/// Error for a picture that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It could not be decoded.
    #[error("{}: {error}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        error: Box<dyn Error + Send + Sync>,
    },
    /// It is no longer of the size that its boxes were read for.
    #[error("{}: {}x{} pixels, but its boxes are for {}x{}", path.display(), found.width, found.height, expected.width, expected.height)]
    Size {
        /// The file.
        path: PathBuf,
        /// Size of the decoded picture.
        found: Size,
        /// Size by the data set.
        expected: Size,
    },
    /// The thread that was to load it ended.
    #[error("{}: not loaded: the loading thread ended", path.display())]
    Thread {
        /// The file.
        path: PathBuf,
    },
}

/// Loads the batches of epochs.
#[derive(Clone)]
pub struct Loader(Arc<Shared>);

#[derive(Clone)]
struct Shared {
    dataset: Arc<Dataset>,
    decode: Arc<Decode>,
    augmentation: Augmentation,
    options: LoaderOptions,
    /// How often each sample comes in an epoch, on average; once if `None`.
    repeat_factors: Option<Vec<f64>>,
}

/// A sample of an epoch, and how often it came before in it.
type Draw = (usize, usize);

type Loaded = Result<Example, LoadError>;

impl Loader {
    /// Creates a loader whose images [`rcnn_image::open_rgb`] decodes.
    ///
    /// # Errors
    /// When the augmentation makes no sense; see [`Augmentation::validate`].
    pub fn new(
        dataset: Arc<Dataset>,
        augmentation: Augmentation,
        options: LoaderOptions,
    ) -> Result<Self, InvalidField> {
        let decode = Arc::new(|path: &Path| Ok(rcnn_image::open_rgb(path)?));
        Self::with_decode(dataset, decode, augmentation, options)
    }

    /// Creates a loader with a custom decoder, whose images must have the data set's sizes.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn with_decode(
        dataset: Arc<Dataset>,
        decode: Arc<Decode>,
        augmentation: Augmentation,
        options: LoaderOptions,
    ) -> Result<Self, InvalidField> {
        augmentation.validate()?;
        Ok(Self(Arc::new(Shared {
            dataset,
            decode,
            augmentation,
            options,
            repeat_factors: None,
        })))
    }

    /// Repeats each sample as often per epoch as its factor says, on average: see
    /// [`repeat_factors`](crate::repeat_factors). Repeated pictures are augmented each in its own way.
    ///
    /// # Panics
    /// When there are not as many factors as samples.
    pub fn with_repeat_factors(mut self, factors: Vec<f64>) -> Self {
        assert_eq!(factors.len(), self.0.dataset.samples.len(), "factors");
        Arc::make_mut(&mut self.0).repeat_factors = Some(factors);
        self
    }

    /// The number of batches in an epoch.
    pub fn batches(&self) -> usize {
        self.sampler().batches(self.samples())
    }

    /// The number of samples that an epoch is made of.
    fn samples(&self) -> usize {
        match &self.0.repeat_factors {
            Some(factors) => epoch_length(factors),
            None => self.0.dataset.samples.len(),
        }
    }

    /// The data set.
    pub fn dataset(&self) -> &Dataset {
        &self.0.dataset
    }

    /// The indices of an epoch's samples, in the order in which they are loaded.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let sampler = self.sampler();
        let mut order = sampler.order(self.0.dataset.samples.len(), epoch);
        if let Some(factors) = &self.0.repeat_factors {
            let mut rng = generator(self.0.options.seed, Purpose::Repeats, epoch, 0);
            order = repeated(&order, factors, &mut rng);
            order.shuffle(&mut rng);
        }
        let whole = sampler
            .batches(self.samples())
            .saturating_mul(sampler.batch_size);
        order.truncate(whole.min(self.samples()));
        order
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from some batch on: the same as after skipping that many of [`Loader::epoch`].
    pub fn epoch_from(&self, epoch: u64, first_batch: usize) -> Epoch {
        let batch_size = self.sampler().batch_size;
        let mut times = vec![0; self.0.dataset.samples.len()];
        let draws = self.order(epoch).into_iter().map(|index| {
            times[index] += 1;
            (index, times[index] - 1)
        });
        let mut draws: Vec<Draw> = draws.collect();
        let skipped = first_batch.saturating_mul(batch_size);
        draws.drain(..skipped.min(draws.len()));
        Epoch::start(&self.0, draws, batch_size, epoch)
    }

    fn sampler(&self) -> Sampler {
        let options = &self.0.options;
        Sampler {
            seed: options.seed,
            shuffle: options.shuffle,
            batch_size: options.batch_size.max(1),
            drop_last: options.drop_last,
        }
    }
}

impl Shared {
    fn load(&self, (index, time): Draw, epoch: u64) -> Loaded {
        let item = index as u64 | (time as u64) << 40;
        let mut rng = generator(self.options.seed, Purpose::Augmentation, epoch, item);
        let sizes = &self.augmentation.min_sizes;
        let drawn = rng.random::<f64>() * sizes.len() as f64;
        let min_size = sizes.get(drawn as usize).copied();
        let picture = if chance(self.augmentation.mosaic, &mut rng) {
            let samples = self.dataset.samples.len();
            let mut other = || self.picture(rng.random_range(0..samples));
            let pictures = [self.picture(index)?, other()?, other()?, other()?];
            mosaic(&pictures, &mut rng)
        } else {
            self.picture(index)?
        };
        // Without it, all else is drawn as it was before there was any.
        let pastes = self.augmentation.copy_paste;
        let picture = if pastes > 0.0 && chance(pastes, &mut rng) {
            let other = rng.random_range(0..self.dataset.samples.len());
            copy_paste(picture, &self.picture(other)?, &mut rng)
        } else {
            picture
        };
        let skeletons = &self.dataset.skeletons;
        let Labelled { image, instances } = self.augmentation.apply(picture, skeletons, &mut rng);
        Ok(Example {
            index,
            image_id: self.dataset.samples[index].image_id,
            image,
            instances,
            min_size,
        })
    }

    /// A sample's picture with its boxes.
    fn picture(&self, index: usize) -> Result<Labelled, LoadError> {
        let sample = &self.dataset.samples[index];
        let path = sample.image.clone();
        // A panic of the caller's decoder must not end the training.
        let decoded = catch_unwind(AssertUnwindSafe(|| (self.decode)(&path)))
            .unwrap_or_else(|_| Err("the decoder gave up".into()));
        let image = match decoded {
            Ok(image) => image,
            // `open_rgb`'s error names the file, as this one does.
            Err(error) => {
                let error = match error.downcast::<ImageError>() {
                    Ok(error) => error.kind.into(),
                    Err(error) => error,
                };
                return Err(LoadError::Decode { path, error });
            }
        };
        let (found, expected) = (Size::from_dimensions(image.dimensions()), sample.size);
        if found != expected {
            return Err(LoadError::Size {
                path,
                found,
                expected,
            });
        }
        Ok(Labelled {
            image,
            // As in torchvision's references, crowds are not trained on.
            instances: sample.instances.without_crowds(),
        })
    }
}

/// The batches of an epoch, in order. A picture that cannot be loaded is an error in its place in
/// the batch. Dropping it ends the threads.
pub struct Epoch {
    shared: Arc<Shared>,
    order: Vec<Draw>,
    batch_size: usize,
    epoch: u64,
    next: usize,
    /// Thread `t` of `n` loads the samples at `t`, `t + n`, `t + 2n`, ... of the order.
    threads: Vec<(Receiver<Loaded>, JoinHandle<()>)>,
}

impl Epoch {
    fn start(shared: &Arc<Shared>, order: Vec<Draw>, batch_size: usize, epoch: u64) -> Self {
        let count = shared.options.threads.min(order.len());
        let threads = (0..count).map_while(|thread| {
            let (sender, receiver) = sync_channel(shared.options.ahead);
            let shared = Arc::clone(shared);
            let draws: Vec<Draw> = order.iter().skip(thread).step_by(count).copied().collect();
            let work = move || {
                for draw in draws {
                    // Nobody listens any more once the epoch is dropped.
                    if sender.send(shared.load(draw, epoch)).is_err() {
                        break;
                    }
                }
            };
            let name = format!("load-{thread}");
            let handle = thread::Builder::new().name(name).spawn(work).ok()?;
            Some((receiver, handle))
        });
        let mut threads: Vec<_> = threads.collect();
        // The work is shared out among all or none: with too few threads, it is done here.
        if threads.len() < count {
            threads.clear();
        }
        Self {
            shared: Arc::clone(shared),
            order,
            batch_size,
            epoch,
            next: 0,
            threads,
        }
    }

    fn load(&self, place: usize) -> Loaded {
        let draw = self.order[place];
        if self.threads.is_empty() {
            return self.shared.load(draw, self.epoch);
        }
        let (receiver, _) = &self.threads[place % self.threads.len()];
        receiver.recv().unwrap_or_else(|_| {
            let path = self.shared.dataset.samples[draw.0].image.clone();
            Err(LoadError::Thread { path })
        })
    }
}

impl Iterator for Epoch {
    type Item = Vec<Result<Example, LoadError>>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.order.len().min(self.next + self.batch_size);
        if self.next == end {
            return None;
        }
        let batch = (self.next..end).map(|place| self.load(place)).collect();
        self.next = end;
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.order.len() - self.next).div_ceil(self.batch_size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Epoch {}

impl Drop for Epoch {
    fn drop(&mut self) {
        for (receiver, handle) in self.threads.drain(..) {
            drop(receiver);
            // A thread that panicked has nothing left to do.
            let _ = handle.join();
        }
    }
}
