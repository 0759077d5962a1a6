//! Batches of a data set as burn-train asks for them, decoded beside the training step.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use rcnn_data::{Epoch, Example, LoadError, Loader};

/// Images that a step looks at together.
pub(crate) struct Batch {
    /// From 1.
    pub(crate) epoch: u64,
    /// Place in the epoch, from 0.
    pub(crate) number: usize,
    /// Whether it ends the epoch.
    pub(crate) last: bool,
    pub(crate) examples: Result<Vec<Example>, LoadError>,
}

/// A loader that counts its epochs.
pub(crate) struct Batches {
    loader: Loader,
    /// Batches of each epoch to give; all but with several devices.
    range: Range<usize>,
    epoch: AtomicU64,
}

impl Batches {
    /// Batches from some epoch on, counted from 1.
    pub(crate) fn new(loader: Loader, first_epoch: usize) -> Self {
        Self {
            range: 0..loader.batches(),
            loader,
            epoch: AtomicU64::new(first_epoch as u64),
        }
    }

    fn part(&self, range: Range<usize>) -> Self {
        Self {
            loader: self.loader.clone(),
            range,
            epoch: AtomicU64::new(self.epoch.load(Ordering::Relaxed)),
        }
    }
}

impl<B: Backend> DataLoader<B, Batch> for Batches {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        Box::new(BatchIterator {
            batches: self.loader.epoch_from(epoch, self.range.start),
            next: self.range.start,
            range: self.range.clone(),
            epoch,
        })
    }

    fn num_items(&self) -> usize {
        self.range.len()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, Batch>> {
        // Pixels become tensors in the step, on the device of its model.
        Arc::new(self.part(self.range.clone()))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, Batch>> {
        let first = self.range.start;
        Arc::new(self.part(first + start..first + end))
    }
}

struct BatchIterator {
    batches: Epoch,
    next: usize,
    range: Range<usize>,
    epoch: u64,
}

impl Iterator for BatchIterator {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        if self.next >= self.range.end {
            return None;
        }
        let number = self.next;
        let examples = self.batches.next()?.into_iter().collect();
        self.next += 1;
        Some(Batch {
            epoch: self.epoch,
            number,
            last: self.next == self.range.end,
            examples,
        })
    }
}

impl DataLoaderIterator<Batch> for BatchIterator {
    fn progress(&self) -> Progress {
        Progress {
            items_processed: self.next - self.range.start,
            items_total: self.range.len(),
        }
    }
}
