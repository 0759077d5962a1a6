//! The queue of decoded pictures, and the threads that compute them in batches.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use image::RgbImage;
use rayon::ThreadPoolBuilder;
use rcnn_core::MAX_BATCH_PIXELS;
use rcnn_types::{Instances, Size};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::detector::{Detector, Thresholds};
use crate::refusal::Refusal;
use crate::{App, Options};

/// A decoded picture that waits to be computed.
pub(crate) struct Job {
    pub(crate) picture: RgbImage,
    /// Size of its padded batch.
    pub(crate) padded: Size,
    pub(crate) thresholds: Thresholds,
    pub(crate) reply: oneshot::Sender<Result<Instances, Refusal>>,
    /// Its share of the pixels that may be in memory, held until it is computed.
    pub(crate) _pixels: OwnedSemaphorePermit,
}

/// Pictures in the order in which they were decoded, and the number of those on their way.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
    max_batch: usize,
    batch_window: Duration,
    max_pixels: usize,
}

#[derive(Default)]
struct State {
    /// Batches being computed, and their pixels.
    running: usize,
    running_pixels: usize,
    /// Whether all processors compute the one that is running.
    is_alone: bool,
    /// With the number of the request.
    waiting: VecDeque<(u64, Job)>,
    /// Pictures whose requests wait for an answer.
    admitted: usize,
    /// Pictures that are not decoded yet.
    arriving: usize,
    requests: u64,
    is_closed: bool,
}

impl Queue {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            capacity: options.queue.max(1),
            max_batch: options.max_batch.max(1),
            batch_window: options.batch_window,
            max_pixels: options.max_pixels,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Pictures that are waiting or being computed.
    pub(crate) fn len(&self) -> usize {
        self.lock().admitted
    }

    /// Takes places for the pictures of a request; `None` where there are not that many.
    pub(crate) fn admit(self: &Arc<Self>, pictures: usize) -> Option<Places> {
        let mut state = self.lock();
        if state.admitted + pictures > self.capacity {
            return None;
        }
        state.admitted += pictures;
        state.arriving += pictures;
        state.requests += 1;
        Some(Places {
            queue: self.clone(),
            request: state.requests,
            pictures,
            arriving: Mutex::new(pictures),
        })
    }

    /// Lets the computing thread end once nothing is waiting.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for pictures that can be computed together, the longest waiting among them, where at most `lanes` batches are
    /// computed at the same time.
    ///
    /// A batch that is not full waits a little for pictures that are being decoded, and not at all where there are none.
    /// One behind which nothing waits has all processors, and nothing begins beside it.
    fn next_batch(&self, lanes: usize) -> Option<Batch> {
        let mut state = self.lock();
        let mut deadline = None;
        loop {
            let may_begin = state.running == 0 || (state.running < lanes && !state.is_alone);
            let batch = match may_begin {
                true => self.compatible(&state, self.batch_size(lanes)),
                false => Vec::new(),
            };
            if batch.is_empty() {
                if state.is_closed && state.waiting.is_empty() {
                    // Others may have waited for what was computed last.
                    self.changed.notify_all();
                    return None;
                }
                deadline = None;
                state = self.wait(state, Duration::MAX);
                continue;
            }
            let now = Instant::now();
            let deadline = *deadline.get_or_insert(now + self.batch_window);
            if batch.len() == self.batch_size(lanes) || state.arriving == 0 || deadline <= now {
                let batch = state.begin(&batch);
                if !state.waiting.is_empty() {
                    // Perhaps beside this.
                    self.changed.notify_one();
                }
                return Some(batch);
            }
            state = self.wait(state, deadline - now);
        }
    }

    fn end(&self, batch: &Batch) {
        let mut state = self.lock();
        state.running -= 1;
        state.running_pixels -= batch.pixels;
    }

    /// Most pictures of a batch. Where several are computed at the same time, more than one gains nothing.
    fn batch_size(&self, lanes: usize) -> usize {
        match lanes {
            1 => self.max_batch,
            _ => 1,
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Positions of pictures that can be computed with the first, and beside what is being computed.
    fn compatible(&self, state: &State, most: usize) -> Vec<usize> {
        let Some((_, first)) = state.waiting.front() else {
            return Vec::new();
        };
        let (mut batch, mut pixels) = (Vec::new(), state.running_pixels);
        for (index, (_, job)) in state.waiting.iter().enumerate() {
            let all = pixels + size(job).pixels();
            let fits = job.padded == first.padded
                && job.thresholds.nms_thresh == first.thresholds.nms_thresh
                && job.padded.pixels().saturating_mul(batch.len() + 1) <= MAX_BATCH_PIXELS
                && all <= self.max_pixels;
            // One that is too large for any batch is computed by itself.
            if fits || (batch.is_empty() && state.running == 0) {
                batch.push(index);
                pixels = all;
            }
            if batch.is_empty() || batch.len() == most {
                break;
            }
        }
        batch
    }
}

/// Pictures to be computed together.
struct Batch {
    jobs: Vec<Job>,
    pixels: usize,
    is_alone: bool,
}

impl State {
    /// Takes the pictures at these positions, in ascending order.
    fn begin(&mut self, batch: &[usize]) -> Batch {
        // From the back, so that positions stay what they are.
        let jobs = batch.iter().rev().filter_map(|&i| self.waiting.remove(i));
        let mut jobs: Vec<Job> = jobs.map(|(_, job)| job).collect();
        jobs.reverse();
        let pixels = jobs.iter().map(|job| size(job).pixels()).sum();
        self.is_alone = self.running == 0 && self.waiting.is_empty();
        self.running += 1;
        self.running_pixels += pixels;
        Batch {
            jobs,
            pixels,
            is_alone: self.is_alone,
        }
    }
}

fn size(job: &Job) -> Size {
    Size::from_dimensions(job.picture.dimensions())
}

/// A request's places in the queue. They become free, and its pictures are taken out, when this is dropped: after
/// the answer, or when the client hangs up.
pub(crate) struct Places {
    queue: Arc<Queue>,
    request: u64,
    pictures: usize,
    /// Pictures of this request that are not in the queue yet.
    arriving: Mutex<usize>,
}

impl Places {
    /// Puts a picture into the queue.
    pub(crate) fn push(&self, job: Job) {
        self.arrive(&mut self.queue.lock(), 1)
            .waiting
            .push_back((self.request, job));
        self.queue.changed.notify_one();
    }

    /// A picture turned out to be none.
    pub(crate) fn give_up(&self) {
        self.arrive(&mut self.queue.lock(), 1);
        self.queue.changed.notify_one();
    }

    fn arrive<'a>(&self, state: &'a mut State, pictures: usize) -> &'a mut State {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let pictures = pictures.min(*arriving);
        *arriving -= pictures;
        state.arriving -= pictures;
        state
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        self.arrive(&mut state, usize::MAX);
        state.admitted -= self.pictures;
        state
            .waiting
            .retain(|(request, _)| *request != self.request);
        drop(state);
        self.queue.changed.notify_one();
    }
}

/// Computes until the queue is closed and empty.
pub(crate) fn compute(app: &App, detector: &Detector) {
    let lanes = detector.concurrent.min(app.options.max_batch).max(1);
    // A batch is computed within a pool: from outside, each of its layers would wake the pool's threads and wait to be woken.
    // Batches side by side have processors of their own: in one pool, a thread that waits for its batch's layer could take
    // up the other batch, and not come back before that is done.
    let processors = rayon::current_num_threads() / lanes;
    let pool = || ThreadPoolBuilder::new().num_threads(processors.max(1));
    let lane = || {
        let share = (lanes > 1).then(|| pool().build().ok()).flatten();
        while let Some(batch) = app.queue.next_batch(lanes) {
            let replies = match &share {
                None => compute_batch(app, detector, &batch.jobs),
                Some(_) if batch.is_alone => {
                    rayon::scope(|_| compute_batch(app, detector, &batch.jobs))
                }
                Some(share) => share.install(|| compute_batch(app, detector, &batch.jobs)),
            };
            app.queue.end(&batch);
            for (job, reply) in batch.jobs.into_iter().zip(replies) {
                // Nobody waits where the client hung up.
                let _ = job.reply.send(reply);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..lanes {
            scope.spawn(lane);
        }
        lane();
    });
}

fn compute_batch(app: &App, detector: &Detector, jobs: &[Job]) -> Vec<Result<Instances, Refusal>> {
    let pictures: Vec<&RgbImage> = jobs.iter().map(|job| &job.picture).collect();
    let score_threshs = jobs.iter().map(|job| job.thresholds.score_thresh);
    let thresholds = Thresholds {
        // Each is cut at its own afterwards: what scores less changes nothing about what scores more.
        score_thresh: score_threshs.fold(f32::INFINITY, f32::min),
        nms_thresh: jobs[0].thresholds.nms_thresh,
    };
    let start = Instant::now();
    let found = catch_unwind(AssertUnwindSafe(|| {
        (detector.detect)(&pictures, thresholds)
    }));
    app.metrics.batch(jobs.len(), start.elapsed());
    match found {
        Ok(Ok(found)) => return found.into_iter().map(Ok).collect(),
        Ok(Err(error)) if jobs.len() == 1 => {
            let status = match error.image() {
                Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
                None => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return vec![Err(Refusal::new(status, error))];
        }
        Err(_) if jobs.len() == 1 => {
            tracing::error!("the detector panicked");
            let message = "the detector failed on this picture";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return vec![Err(Refusal::new(status, message))];
        }
        _ => {}
    }
    // One picture must not spoil the others.
    jobs.chunks(1)
        .flat_map(|job| compute_batch(app, detector, job))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    fn queue(options: Options) -> Arc<Queue> {
        Arc::new(Queue::new(&options))
    }

    fn job(side: usize, nms_thresh: f64) -> Job {
        let pixels = Arc::new(Semaphore::new(1)).try_acquire_owned();
        Job {
            picture: RgbImage::new(side as u32, side as u32),
            padded: Size::new(side, side),
            thresholds: Thresholds {
                score_thresh: 0.5,
                nms_thresh,
            },
            reply: oneshot::channel().0,
            _pixels: pixels.expect("a permit"),
        }
    }

    /// A batch that is computed at once.
    fn next(queue: &Queue) -> Option<Batch> {
        let batch = queue.next_batch(1)?;
        queue.end(&batch);
        Some(batch)
    }

    fn sides(batch: Option<Batch>) -> Option<Vec<usize>> {
        let jobs = batch?.jobs;
        Some(jobs.iter().map(|job| job.padded.width).collect())
    }

    #[test]
    fn only_what_has_one_padded_size_and_threshold_is_computed_together() {
        let queue = queue(Options::default());
        let places = queue.admit(5).expect("places");
        let jobs = [(32, 0.5), (64, 0.5), (32, 0.5), (32, 0.7), (32, 0.5)];
        for (side, nms_thresh) in jobs {
            places.push(job(side, nms_thresh));
        }
        assert_eq!(sides(next(&queue)), Some(vec![32, 32, 32]));
        assert_eq!(sides(next(&queue)), Some(vec![64]));
        assert_eq!(sides(next(&queue)), Some(vec![32]));
        queue.close();
        assert!(next(&queue).is_none());
    }

    #[test]
    fn batches_are_bounded_in_number_and_pixels() {
        let bounds = Options {
            max_batch: 2,
            max_pixels: 3 * 32 * 32,
            ..Options::default()
        };
        let queue = queue(bounds);
        let places = queue.admit(3).expect("places");
        (0..3).for_each(|_| places.push(job(32, 0.5)));
        assert_eq!(next(&queue).map(|batch| batch.jobs.len()), Some(2));
        assert_eq!(next(&queue).map(|batch| batch.jobs.len()), Some(1));
        let places = queue.admit(2).expect("places");
        (0..2).for_each(|_| places.push(job(64, 0.5)));
        // Larger than all that a batch may have, but each has to be computed some time.
        assert_eq!(next(&queue).map(|batch| batch.jobs.len()), Some(1));
    }

    #[test]
    fn a_client_that_hangs_up_frees_its_places() {
        let bounds = Options {
            queue: 3,
            ..Options::default()
        };
        let queue = queue(bounds);
        let (first, second) = (queue.admit(2).expect("places"), queue.admit(1));
        let second = second.expect("a place");
        assert!(queue.admit(1).is_none(), "it is full");
        first.push(job(32, 0.5));
        second.push(job(64, 0.5));
        drop(first);
        assert_eq!(queue.len(), 1);
        assert!(queue.admit(3).is_none());
        let batch = next(&queue);
        assert_eq!(
            sides(batch),
            Some(vec![64]),
            "the other is no longer waiting"
        );
        drop(second);
        assert!(queue.admit(3).is_some());
    }

    #[test]
    fn a_batch_waits_for_pictures_on_their_way_only() {
        let patient = Options {
            batch_window: Duration::from_secs(60),
            ..Options::default()
        };
        let queue = queue(patient);
        let places = queue.admit(3).expect("places");
        places.push(job(32, 0.5));
        let batch = thread::scope(|scope| {
            let batch = scope.spawn(|| next(&queue));
            places.push(job(32, 0.5));
            places.give_up();
            batch.join().expect("no panic")
        });
        assert_eq!(batch.map(|batch| batch.jobs.len()), Some(2));
    }

    #[test]
    fn a_picture_behind_which_none_waits_has_all_processors() {
        let queue = queue(Options::default());
        let places = queue.admit(6).expect("places");
        places.push(job(32, 0.5));
        let first = queue.next_batch(2).expect("a batch");
        assert!(first.is_alone);
        thread::scope(|scope| {
            let next = scope.spawn(|| queue.next_batch(2));
            (0..3).for_each(|_| places.push(job(64, 0.5)));
            thread::sleep(Duration::from_millis(50));
            assert!(!next.is_finished(), "it is no longer alone");
            queue.end(&first);
            let second = queue.next_batch(2).expect("a batch");
            // The other thread knows by now that there is more to do.
            let third = next.join().expect("no panic").expect("a batch");
            assert!(!second.is_alone && !third.is_alone);
            assert_eq!([second.jobs.len(), third.jobs.len()], [1, 1]);
            queue.end(&second);
            // It shares the processors with the one before.
            let last = queue.next_batch(2).expect("a batch");
            assert!(!last.is_alone);
            queue.end(&third);
            queue.end(&last);
            // The thread that has waited for its turn hears of the end.
            places.push(job(32, 0.5));
            let alone = queue.next_batch(2).expect("a batch");
            places.push(job(32, 0.5));
            let idle = scope.spawn(|| queue.next_batch(2));
            thread::sleep(Duration::from_millis(50));
            queue.close();
            queue.end(&alone);
            assert!(queue.next_batch(2).is_some());
            assert!(queue.next_batch(2).is_none());
            assert!(idle.join().expect("no panic").is_none());
        });
    }

    #[test]
    fn batches_side_by_side_have_no_more_pixels_than_one_may() {
        let queue = queue(Options {
            max_pixels: 3 * 32 * 32,
            ..Options::default()
        });
        let places = queue.admit(3).expect("places");
        (0..3).for_each(|_| places.push(job(48, 0.5)));
        let first = queue.next_batch(2).expect("a batch");
        assert!(!first.is_alone);
        thread::scope(|scope| {
            let next = scope.spawn(|| queue.next_batch(2));
            thread::sleep(Duration::from_millis(50));
            assert!(!next.is_finished(), "two are too large");
            queue.end(&first);
            let second = queue.next_batch(2).expect("a batch");
            thread::sleep(Duration::from_millis(50));
            assert!(!next.is_finished(), "two are too large");
            queue.end(&second);
            queue.close();
            assert!(next.join().expect("no panic").is_some());
        });
    }
}
